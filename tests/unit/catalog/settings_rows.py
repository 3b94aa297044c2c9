"""Rules of settings files, of disabled.json, and of what fits a worker."""

from tests.unit.catalog.workspace_row import MANIFEST, Row

TOML = [
    Row(rule="broken TOML", code="toml_syntax", files={"bucket.conf": "port_min = §\n"}),
    Row(rule="the pool's ends are in order", code="min_above_max", files={"bucket.conf": "port_min = §2000\nport_max = 1000\n"}),
    Row(rule="the pool's ends are ports", code="out_of_range", files={"bucket.conf": 'x = "y"\nport_max = §70000\n'}),
    Row(rule="bucket variables are plain", code="bad_variable", files={"bucket.conf": "x = 1\n§y = [[1]]\n"}),
    Row(rule="job settings are tables", code="wrong_type", files={"bucket.jobs.conf": "api = §3\n"}),
    Row(
        rule="job settings name jobs",
        code="unknown_job",
        files={"bucket.jobs.conf": '[§apj]\nmemory = "1 gb"\n'},
        help='did you mean "api"?',
    ),
    Row(rule="job memory is an amount", code="bad_memory", files={"bucket.jobs.conf": '[api]\nmemory = §"much"\n'}),
    Row(rule="other variants are read too", code="bad_cpu", files={"bucket.jobs.prod.conf": '[api]\ncpu = §"fast"\n'}),
    Row(
        rule="reservation is not above the manifest's",
        code="reservation_out_of_range",
        files={MANIFEST: '{"resources": {"memory": {"max": "1 gb"}}}', "bucket.jobs.conf": '[api]\nmemory = §"2 gb"\n'},
        message="at most 1024",
    ),
    Row(
        rule="reservation is not below the manifest's",
        code="reservation_out_of_range",
        files={MANIFEST: '{"resources": {"cpu": {"min": "1 ghz"}}}', "bucket.jobs.conf": "[api]\nx = 1\ncpu = §500\n"},
        message="at least 1000",
    ),
    Row(
        rule="the selected variant decides",
        code="reservation_out_of_range",
        conf='job_config_selector = "prod"',
        files={
            MANIFEST: '{"resources": {"memory": {"max": "1 gb"}}}',
            "bucket.jobs.conf": '[api]\nmemory = "1 gb"\n',
            "bucket.jobs.prod.conf": '[api]\nmemory = §"2 gb"\n',
        },
    ),
    Row(rule="variables of a job are plain", code="bad_variable", files={"jobs/api/vars.toml": "§a = [{b = 1}]\n"}),
    Row(rule="variables have names", code="bad_variable_name", files={"jobs/api/vars.toml": '§"" = 1\n'}),
    Row(rule="keys are one", code="duplicate_key", files={"jobs/api/vars.toml": '"a.b" = 1\n[a]\n§b = 2\n'}, message='"a.b"'),
    Row(rule="numbers are sane", code="number_too_large", files={"jobs/api/vars.toml": "a = [1, §0x" + "f" * 5000 + "]\n"}),
    Row(rule="nesting of tables is sane", code="too_deep", files={"jobs/api/vars.toml": "a." * 500_000 + "b = 1\n"}),
    Row(rule="nesting of lists is sane", code="too_deep", files={"jobs/api/vars.toml": "a = " + "[" * 40 + "]" * 40 + "\n"}),
    Row(rule="no U+0000", code="nul_character", files={"jobs/api/vars.toml": 'a = "§\\u0000"\n'}),
    Row(rule="broken vars.toml", code="toml_syntax", files={"jobs/api/vars.toml": "a = 1\nb = [1, §\n"}),
    Row(rule="keys are given once", code="duplicate_key", files={"jobs/api/vars.toml": "a = 1\na = 2\n"}),
]

DISABLED = [
    Row(
        rule="disabled jobs exist",
        code="unknown_job",
        files={"disabled.json": '{"jobs": {§"apo": {}}}'},
        help='did you mean "api"?',
    ),
    Row(
        rule="disabled workers exist",
        code="unknown_worker",
        files={"disabled.json": '{"workers": ["10.0.0.1", §"10.0.0.3"]}'},
        help="did you mean",
    ),
    Row(
        rule="disabled allocations exist",
        code="unknown_allocation",
        files={"disabled.json": '{"jobs": {"api": {"allocations": [§"10.0.0.9"]}}}'},
    ),
    Row(rule="unknown keys", code="unknown_key", files={"disabled.json": '{§"job": {}}'}, help='did you mean "jobs"?'),
]

CAPACITY = [
    Row(
        rule="memory fits the worker",
        code="over_capacity",
        files={
            "workers.json": '[{"host": "a", "labels": ["api"], "memory": §"1 gb"}]',
            MANIFEST: '{"resources": {"memory": {"max": "2 gb"}}}',
        },
        message="has 1024 mb of memory, its jobs reserve 2048 (api 2048)",
    ),
    Row(
        rule="cpu fits the worker",
        code="over_capacity",
        files={
            "workers.json": '[{"host": "a", "labels": ["api"], "cpu": §1000}]',
            MANIFEST: '{"resources": {"cpu": {"max": "2 ghz"}}}',
        },
    ),
]
