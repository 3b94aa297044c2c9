"""Reading the files that people write: text -> one model per file -> frozen facts, or problems with their positions.

    json_text, toml_text   strict text -> plain data, and where each key stands
    validation             plain data -> model, or findings
    manifest_file, …       one model per kind of file; the JSON Schema is printed from the same model
    compiler               a whole workspace -> `Workspace`, or every problem of every file in one pass

pydantic and tomllib appear here and nowhere else in the catalog.
"""
