"""Files of settings: what is read from good ones, and the schemas that are printed from the same models."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maand_catalog.building.documents.compiler import KNOWN_FILES, compile_config
from maand_catalog.building.documents.json_text import find_json_spots, read_json
from maand_catalog.building.documents.schema import MODEL_BY_KIND, json_schema
from maand_catalog.building.documents.source import NotReadable
from maand_catalog.building.documents.toml_text import read_toml
from maand_catalog.rules.workspace import job_files
from maand_catalog.rules.workspace.bucket_facts import CONFIG_FILE, BucketConfig
from maand_cli.commands.about import KINDS
from tests.unit.catalog.workspaces import BUCKET_ID, compile_files, maand_conf, problems, unmark, workspace

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)

CONF_ROWS = [
    ("unknown_key", "§ssh_por = 22", 'did you mean "ssh_port"?'),
    ("out_of_range", "ssh_port = §0", ""),
    ("wrong_type", 'use_sudo = §"yes"', ""),
    ("unknown_word", 'host_keys = §"none"', ""),
    ("unknown_word", 'log_format = §"xml"', ""),
    ("bad_file_name", 'ssh_key = §"../key"', ""),
    ("bad_path", 'worker_root = §"/"', ""),
    ("bad_path", 'worker_root = §"/opt/../etc"', ""),
    ("out_of_range", "certs_ttl = §0", ""),
    ("buffer_too_long", "certs_ttl = 10\ncerts_renewal_buffer = §10", ""),
    ("bad_selector", 'job_config_selector = §"a/b"', ""),
    ("out_of_range", "max_parallel_jobs = §0", ""),
    ("out_of_range", "max_ssh_sessions = §0", ""),
    ("out_of_range", "ssh_starts_per_second = §0", ""),
    ("bad_variable_name", 'hook_env = ["OK", §"1X"]', ""),
    ("out_of_range", "hook_timeout_seconds = §0", ""),
    ("toml_syntax", "ssh_user = §", ""),
]


@pytest.mark.parametrize(("code", "line", "help_text"), CONF_ROWS, ids=lambda value: value if isinstance(value, str) else "")
def test_every_rule_of_maand_conf_is_told_at_its_place(code: str, line: str, help_text: str) -> None:
    files, (_, row, column) = unmark({"maand.conf": maand_conf(line + "\n")})

    found = compile_config(str(files["maand.conf"]).encode(), BUCKET_ID)

    assert isinstance(found, tuple)
    assert [(problem.code, problem.file, problem.line, problem.column) for problem in found] == [
        (code, "maand.conf", row, column)
    ]
    assert help_text in found[0].help


def test_a_maand_conf_of_another_bucket_is_refused_at_its_id() -> None:
    found = compile_config(maand_conf().encode(), "00000000-0000-0000-0000-000000000000")

    assert isinstance(found, tuple)
    assert (found[0].code, found[0].line, found[0].column) == ("other_bucket", 1, 13)


def test_a_maand_conf_needs_only_the_bucket_id() -> None:
    found = compile_config(maand_conf().encode(), BUCKET_ID)

    assert found == BucketConfig(bucket_id=BUCKET_ID)
    assert (found.ssh_user, found.worker_root, found.certs_ttl, found.max_ssh_sessions) == ("agent", "/opt/worker", 60, 2000)


def test_an_empty_ssh_key_chooses_the_agent() -> None:
    found = compile_config(f'{maand_conf()}\nssh_key = ""\n'.encode(), BUCKET_ID)

    assert isinstance(found, BucketConfig)
    assert found.ssh_key == ""


@pytest.mark.parametrize("content", [b"\xff", b"a" * (1024 * 1024 + 1), b"\xef\xbb\xbfa = 1"])
def test_a_maand_conf_that_is_no_text_is_one_problem(content: bytes) -> None:
    found = compile_config(content, BUCKET_ID)

    assert isinstance(found, tuple)
    assert len(found) == 1


def test_workers_are_ordered_by_the_position_written_else_by_their_place() -> None:
    found = workspace(
        {
            "workers.json": """[{"host": "a", "position": 5},
                               {"host": "b"}, {"host": "c", "labels": ["api"], "memory": "4 gb", "cpu": "2 ghz"}]"""
        }
    ).workers

    assert [(worker.name, worker.position) for worker in found] == [("b", 0), ("c", 1), ("a", 2)]
    assert found[1].labels == ("api", "worker")
    assert (found[1].memory_mb, found[1].cpu_mhz) == (4096, 2000)


def test_the_manifest_of_the_specification_is_read_in_full() -> None:
    found = workspace(
        {
            "jobs/api/manifest.json": json.dumps(
                {
                    "version": "v2.1.0",
                    "selectors": ["api"],
                    "restart_policy": "reload",
                    "restart_globs": ["*.conf"],
                    "resources": {"memory": {"min": "256 mb", "max": "1 gb"}, "ports": {"http": {}, "admin": 9000}},
                    "hooks": {"hook_a": {"executed_on": ["pre_deploy", "cli"], "scope": "rollout", "timeout_seconds": 900}},
                    "health_check": {"checks": [{"type": "http", "port": "http", "path": "/healthz"}], "timeout_seconds": 2},
                    "certs": {"tls": {"pkcs8": True, "subject": {"common_name": "api.internal"}}},
                }
            ),
            "jobs/api/_hooks/hook_a.ts": "",
        }
    )

    job = found.parts.jobs["api"]
    assert job.manifest.version == "2.1.0"
    assert (job.manifest.memory.smallest, job.manifest.memory.largest) == (256, 1024)
    assert job.manifest.ports == (("admin", 9000), ("http", None))
    assert [(script.path, script.runtime, script.hook.scope) for script in job.scripts] == [
        ("_hooks/hook_a.ts", "bun", "rollout")
    ]
    assert job.manifest.certificates[0].subject == (("common_name", "api.internal"),)
    assert found.reservations["api"].memory_mb == 1024


def test_a_job_control_hook_replaces_the_makefile() -> None:
    files = {
        "jobs/api/Makefile": None,
        "jobs/api/manifest.json": '{"hooks": {"hook_control": {"executed_on": ["job_control"]}}}',
        "jobs/api/_hooks/hook_control.py": "",
    }

    assert not workspace(files).parts.jobs["api"].has_makefile()


def test_the_selected_job_settings_are_laid_over_the_plain_ones() -> None:
    found = workspace(
        {
            "bucket.jobs.conf": '[api]\nmemory = "1 gb"\ncpu = 100\na = 1\nb = 1\n',
            "bucket.jobs.prod.conf": "[api]\ncpu = 200\nb = 2\n",
        },
        conf='job_config_selector = "prod"\n',
    )

    settings = found.parts.settings_of("api")
    assert (settings.memory_mb, settings.cpu_mhz) == (1024, 200)
    assert dict(settings.variables) == {"memory": "1 gb", "cpu": "200", "a": "1", "b": "2"}


def test_variables_are_texts_numbers_lists_and_nested_tables() -> None:
    found = workspace(
        {
            "bucket.conf": 'port_min = "40000"\nport_max = 40009\n'
            's = "x"\nf = 1.5\nb = true\nl = ["a", 2]\nd = 2026-01-02\n[t]\nk.v = 1\n'
        }
    ).parts

    assert (found.pool.smallest, found.pool.largest) == (40000, 40009)
    assert found.bucket_variables == {
        "port_min": "40000",
        "port_max": "40009",
        "s": "x",
        "f": "1.5",
        "b": "true",
        "l": "a,2",
        "d": "2026-01-02",
        "t.k.v": "1",
    }


def test_likely_slips_are_warnings() -> None:
    compiled = compile_files(
        {
            "worker.json": "[]",
            "jobs/api/_hooks/hook_forgotten.py": "",
            "jobs/db/manifest.json": "{}",
            "jobs/db/Makefile": "",
            "README.md": "",
            "jobs/manifest.json": "{}",
            "jobs/.gitkeep": "",
        }
    )

    assert compiled.workspace is not None
    assert sorted(compiled.workspace.warnings) == [
        'job "db" matches no worker: no worker has the labels db',
        "workspace/jobs/api/_hooks/hook_forgotten.py is not named in the manifest",
        "workspace/jobs/manifest.json is not read, a job is a directory with a manifest.json",
        'workspace/worker.json is not read, did you mean "workers.json"?',
    ]


STAND_INS: list[tuple[dict[str, str], dict[str, str], str, str]] = [
    ({}, {"jobs": "../real"}, "workspace/jobs", '"jobs" is a symbolic link, it must be a directory'),
    ({"jobs": "../real"}, {}, "workspace/jobs", '"jobs" is a file, it must be a directory'),
    ({}, {"jobs/db": "../../real/db"}, "workspace/jobs/db", '"jobs/db" is a symbolic link, it must be a directory'),
    ({}, {"jobs/db": "/nowhere"}, "workspace/jobs/db", '"jobs/db" is a symbolic link, it must be a directory'),
    ({"jobs/db": "../../real/db"}, {}, "workspace/jobs/db", '"jobs/db" is a file, it must be a directory'),
]


@pytest.mark.parametrize(
    ("files", "links", "file", "message"), STAND_INS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_stands_in_the_place_of_jobs_or_of_a_job_is_an_error_beside_all_others(
    files: dict[str, str], links: dict[str, str], file: str, message: str
) -> None:
    base = {"workers.json": None, "disabled.json": "{", **files}
    if "jobs" in {*files, *links}:
        base |= {"jobs/api/manifest.json": None, "jobs/api/Makefile": None}

    found = {problem.file: problem for problem in compile_files(base, links=links).problems}

    assert set(found) == {"workspace/workers.json", "workspace/disabled.json", file}
    assert (found[file].code, found[file].message) == ("not_a_directory", message)
    assert found[file].help


def test_what_hooks_install_is_not_part_of_a_workspace() -> None:
    files = {f"jobs/api/_hooks/{name}/x.py": "" for name in (".venv", "venv", "node_modules", "__pycache__")}

    kept = workspace({**files, "jobs/api/_hooks/lib/venv/x.py": ""}).parts.jobs["api"].files

    assert [entry.path for entry in kept] == ["Makefile", "_hooks/lib/venv/x.py", "manifest.json"]


def test_one_mebibyte_on_one_line_is_read_or_refused_and_never_hangs() -> None:
    padding = " " * (1024 * 1024 - 20)

    assert problems({"jobs/api/manifest.json": "{" + padding + "}"}) == ()
    [found] = problems({"jobs/api/manifest.json": "{" + padding[:-20] + '"x": 1}'})
    assert (found.code, found.line) == ("unknown_key", 1)
    assert found.column > 1_000_000


@given(VALUES, st.integers(0, 3))
def test_every_value_of_any_json_text_has_its_place(value: Any, indent: int) -> None:
    text = json.dumps(value, indent=indent or None)

    for path, spot in find_json_spots(text).items():
        found = value
        for step in path:
            found = found[step]
        assert json.JSONDecoder().raw_decode(text, spot.value)[0] == found
        if path and isinstance(path[-1], str):
            assert json.JSONDecoder().raw_decode(text, spot.key)[0] == path[-1]


TOML_KEYS = st.sampled_from(["a", "b-c", "x_1", "q r", "ü"])
TOML_VALUES = st.one_of(
    st.integers(-99, 99).map(str),
    st.sampled_from(
        ["true", "1.5", '"t#=["', "'l\"'", '"""m\n[x]\n"""', "[1, [2], {k = '}'}]", "{i = 1, j.k = [3]}", "2026-01-02"]
    ),
)


@given(st.dictionaries(st.tuples(TOML_KEYS, TOML_KEYS), TOML_VALUES, max_size=6), st.booleans())
def test_every_value_of_a_toml_text_has_its_place(pairs: dict[tuple[str, str], str], windows: bool) -> None:
    text = "# begins\n"
    for table in sorted({table for table, _ in pairs}):
        text += f"[{json.dumps(table, ensure_ascii=False)}] # t\n"
        text += "".join(
            f"{json.dumps(key, ensure_ascii=False)} = {value} # v\n" for (of, key), value in pairs.items() if of == table
        )
    text = text.replace("\n", "\r\n") if windows else text

    source = read_toml("x.toml", text.encode())

    for (table, key), value in pairs.items():
        spot = source.spots[table, key]
        written = value.replace("\n", "\r\n") if windows else value
        assert text[spot.key :].startswith(json.dumps(key, ensure_ascii=False))
        assert text[spot.value :].startswith(written)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_told_as_one_problem(content: bytes) -> None:
    for read in (read_json, read_toml):
        with contextlib.suppress(NotReadable):
            read("x", content)


@pytest.mark.parametrize("kind", MODEL_BY_KIND)
def test_every_kind_of_file_has_a_schema_of_the_2020_draft(kind: str) -> None:
    schema = json.loads(json_schema(kind))

    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    if kind == "bucket.jobs.conf":
        assert set(schema["$defs"]["JobTable"]["properties"]) == {"memory", "cpu"}
    elif schema["type"] == "object":
        assert schema["additionalProperties"] is (kind == "bucket.conf")


def test_the_command_line_offers_a_schema_for_every_file_that_has_a_model() -> None:
    assert set(KINDS) == set(MODEL_BY_KIND)
    read_by_name = {CONFIG_FILE, *(name.removesuffix(".json") for name in (*KNOWN_FILES, job_files.MANIFEST))}
    assert read_by_name == set(MODEL_BY_KIND)
