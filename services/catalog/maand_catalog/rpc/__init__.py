"""The wire side of the catalog: one servicer per noun, who calls, and which error becomes which status."""
