"""Every rule of the workspace as a row."""

from tests.unit.catalog.settings_rows import CAPACITY, DISABLED, TOML
from tests.unit.catalog.workspace_row import DB, HOOK, MANIFEST, Row, demand, hooked, manifest

WORKERS_FILE = [
    Row(
        rule="a worker needs a host",
        code="missing_key",
        files={"workers.json": '[§{"labels": ["api"]}]'},
        message='"host" is missing',
    ),
    Row(rule="a host is an address or a name", code="bad_host", files={"workers.json": '[{"host": §"10.0.0.999"}]'}),
    Row(
        rule="one address in two spellings is one host",
        code="duplicate_host",
        files={"workers.json": '[{"host": "fd77::2"}, {"host": §"FD77:0:0:0:0:0:0:2"}]'},
    ),
    Row(
        rule="an IPv4 address in IPv6's clothes is that address",
        code="duplicate_host",
        files={"workers.json": '[{"host": "10.0.0.1"}, {"host": §"::ffff:10.0.0.1"}]'},
    ),
    Row(
        rule="one name in two spellings is one host",
        code="duplicate_host",
        files={"workers.json": '[{"host": "web1.example.com"}, {"host": §"Web1.example.com."}]'},
    ),
    Row(
        rule="a host is no link-local address with a zone",
        code="link_local_host",
        files={"workers.json": '[{"host": §"fe80::1%eth0"}]'},
    ),
    Row(rule="a host has no spaces", code="bad_host", files={"workers.json": '[{"host": §"web one"}]'}),
    Row(rule="hosts are unique", code="duplicate_host", files={"workers.json": '[{"host": "a"},\n {"host": §"a"}]'}),
    Row(
        rule="positions are unique",
        code="duplicate_position",
        files={"workers.json": '[{"host": "a", "position": 1},\n {"host": "b", "position": §1}]'},
    ),
    Row(rule="labels are lower-case", code="bad_label", files={"workers.json": '[{"host": "a", "labels": ["ok", §"API"]}]'}),
    Row(
        rule="memory has a known unit",
        code="bad_memory",
        files={"workers.json": '[{"host": "a", "memory": §"4 gib"}]'},
        help='"4 gb"',
    ),
    Row(
        rule="cpu has a known unit", code="bad_cpu", files={"workers.json": '[{"host": "a", "cpu": §"2 cores"}]'}, help='"2 ghz"'
    ),
    Row(
        rule="tags are texts",
        code="wrong_type",
        files={"workers.json": '[{"host": "a", "tags": {"rack": §7}}]'},
        message="must be a string",
    ),
    Row(
        rule="the file is a list",
        code="wrong_type",
        files={"workers.json": '§{"host": "a"}'},
        message="must be a list, not an object",
    ),
    Row(
        rule="unknown keys of a worker",
        code="unknown_key",
        files={"workers.json": '[{"host": "a", §"lables": []}]'},
        help='did you mean "labels"?',
    ),
    Row(rule="a host fits a namespace", code="bad_host", files={"workers.json": '[{"host": §"' + "a." * 100 + 'b"}]'}),
    Row(rule="a user is one word", code="bad_user", files={"workers.json": '[{"host": "a", "ssh_user": §"-oProxyCommand=x"}]'}),
    Row(rule="tags have names", code="bad_tag", files={"workers.json": '[{"host": "a", "tags": {§"a\\n": "b"}}]'}),
    Row(rule="an ssh port is a port", code="out_of_range", files={"workers.json": '[{"host": "a", "ssh_port": §70000}]'}),
]

MANIFEST_FILE = [
    manifest(
        "unknown keys name the nearest",
        "unknown_key",
        '{\n  "selectors": ["api"],\n  §"max_concurent_upgrades": 2}',
        message='unknown key "max_concurent_upgrades"',
        help='did you mean "max_concurrent_upgrades"?',
    ),
    manifest("unknown keys deep inside", "unknown_key", '{"resources": {"memory": {§"mx": "1 gb"}}}', help='did you mean "max"?'),
    manifest("a version has one to three numbers", "bad_version", '{"version": §"1.2.3.4"}'),
    manifest("selectors are not empty", "empty_list", '{"selectors": §[]}'),
    manifest("selectors are labels", "bad_label", '{"selectors": [§"Api"]}'),
    manifest("starts are not negative", "out_of_range", '{"max_concurrent_starts": §-1}', message="at least 0"),
    manifest("stops are not negative", "out_of_range", '{"max_concurrent_stops": §-1}', message="at least 0"),
    manifest("upgrades are at least one", "out_of_range", '{"max_concurrent_upgrades": §0}', message="at least 1"),
    manifest(
        "counts are whole numbers",
        "wrong_type",
        '{"max_concurrent_upgrades": §"2"}',
        message="must be a whole number, not a string",
    ),
    manifest("true is not a number", "wrong_type", '{"max_concurrent_upgrades": §true}', message="not true or false"),
    manifest("2.0 is not whole", "wrong_type", '{"max_concurrent_upgrades": §2.0}', message="not a decimal number"),
    manifest("null is not a value", "wrong_type", '{"max_concurrent_upgrades": §null}', message="not null"),
    manifest(
        "enough workers match", "too_few_allocations", '{"min_allocations_count": §3}', message="2 workers match, at least 3"
    ),
    manifest("the restart policy is a known word", "unknown_word", '{"restart_policy": §"relod"}', help='did you mean "reload"?'),
    manifest("globs only with reload", "globs_without_reload", '{"restart_globs": §["*.conf"]}'),
    manifest("memory range is in order", "min_above_max", '{"resources": {"memory": {"min": §"2 gb", "max": "1 gb"}}}'),
    manifest("cpu range is in order", "min_above_max", '{"resources": {"cpu": {"min": §"2 ghz", "max": "1 ghz"}}}'),
    manifest("port names", "bad_port_name", '{"resources": {"ports": {§"Http": {}}}}'),
    manifest("port numbers", "bad_port", '{"resources": {"ports": {"http": §70000}}}'),
    manifest("a port is {} or a number", "bad_port", '{"resources": {"ports": {"http": §{"fixed": 80}}}}'),
    manifest("one job uses a number once", "duplicate_port", '{"resources": {"ports": {"a": 80, "b": §80}}}'),
    manifest("hook names", "bad_hook_name", '{"hooks": {§"migrate": {"executed_on": ["cli"]}}}'),
    manifest(
        "probes are of a known kind",
        "unknown_word",
        '{"health_check": {"checks": [{"type": §"tpc", "port": 80}]}}',
        help='did you mean "tcp"?',
    ),
    manifest("probes have a kind", "missing_key", '{"health_check": {"checks": [§{"port": 80}]}}', message='"type" is missing'),
    manifest(
        "probes name ports that exist",
        "unknown_port",
        '{"resources": {"ports": {"http_port": {}}}, "health_check": {"checks": [{"type": "tcp", "port": §"htp_port"}]}}',
        help='did you mean "http_port"?',
    ),
    manifest(
        "an http path begins with a slash",
        "bad_path",
        '{"health_check": {"checks": [{"type": "http", "port": 80, "path": §"health"}]}}',
    ),
    manifest(
        "an http status is a status",
        "out_of_range",
        '{"health_check": {"checks": [{"type": "http", "port": 80, "expect_status": §20}]}}',
    ),
    manifest("health waits at least once", "out_of_range", '{"health_check": {"wait": {"attempts": §0}}}'),
    manifest("certificate names become file names", "bad_certificate_name", '{"certs": {§"../tls": {}}}'),
    manifest("subjects fit X.509", "bad_subject", '{"certs": {"tls": {"subject": {"common_name": §"' + "ä" * 33 + '"}}}}'),
    manifest("countries have two letters", "bad_subject", '{"certs": {"tls": {"subject": {"country": §"Germany"}}}}'),
    manifest("commands are hooks now", "old_name", '{§"commands": {}}', help='"commands" is now "hooks"'),
    manifest("deploy_parallel_count was replaced", "old_name", '{§"deploy_parallel_count": 1}', help="max_concurrent_starts"),
    manifest("update_parallel_count was replaced", "old_name", '{§"update_parallel_count": 1}', help="max_concurrent_upgrades"),
    manifest("a manifest is an object", "wrong_type", "§[]", message="must be an object, not a list"),
    Row(
        rule="port names are unique in the bucket",
        code="duplicate_port_name",
        files={
            **DB,
            MANIFEST: '{"resources": {"ports": {"p": {}}}}',
            "jobs/db/manifest.json": '{"resources": {"ports": {§"p": {}}}, "selectors": ["api"]}',
        },
        message='job "api" has a port "p" already',
    ),
    Row(
        rule="fixed numbers are not shared on a worker",
        code="duplicate_port",
        files={
            **DB,
            MANIFEST: '{"resources": {"ports": {"a": 80}}}',
            "jobs/db/manifest.json": '{"resources": {"ports": {"b": §80}}, "selectors": ["api"]}',
        },
        message="on 10.0.0.1",
    ),
]

HOOKS = [
    hooked("executed_on is not empty", "empty_list", '{"hooks": {"hook_a": {"executed_on": §[]}}}'),
    hooked("executed_on is needed", "missing_key", '{"hooks": {"hook_a": §{}}}'),
    hooked(
        "events are known",
        "unknown_event",
        '{"hooks": {"hook_a": {"executed_on": ["cli", §"pre_deply"]}}}',
        help='did you mean "pre_deploy"?',
    ),
    hooked(
        "events do not repeat",
        "repeated_event",
        '{"hooks": {"hook_a": {"executed_on": ["cli", §"cli"]}}}',
        message='names "cli" twice',
    ),
    hooked(
        "scope is a known word",
        "unknown_word",
        '{"hooks": {"hook_a": {"executed_on": ["cli"], "scope": §"rolout"}}}',
        help='did you mean "rollout"?',
    ),
    hooked("runtime is a known word", "unknown_word", '{"hooks": {"hook_a": {"executed_on": ["cli"], "runtime": §"node"}}}'),
    hooked(
        "runtime agrees with the suffix", "runtime_mismatch", '{"hooks": {"hook_a": {"executed_on": ["cli"], "runtime": §"bun"}}}'
    ),
    hooked("a timeout is positive", "out_of_range", '{"hooks": {"hook_a": {"executed_on": ["cli"], "timeout_seconds": §0}}}'),
    hooked(
        "a hook has a script", "missing_script", '{"hooks": {§"hook_b": {"executed_on": ["cli"]}}}', help='did you mean "hook_a"?'
    ),
    Row(
        rule="a hook has one script",
        code="ambiguous_script",
        files={**HOOK, "jobs/api/_hooks/hook_a.ts": "", MANIFEST: '{"hooks": {§"hook_a": {"executed_on": ["cli"]}}}'},
        message="_hooks/hook_a.py, _hooks/hook_a.ts",
    ),
    hooked("a demand names both", "half_a_demand", demand('{"job": §"db"}')),
    hooked("a demand is not of oneself", "demands_itself", demand('{"job": §"api", "hook": "hook_a"}')),
    hooked("a demanded job exists", "unknown_job", demand('{"job": §"dbs", "hook": "hook_s"}'), help='did you mean "db"?'),
    hooked("a demanded hook exists", "unknown_hook", demand('{"job": "db", "hook": §"hook_t"}'), help='did you mean "hook_s"?'),
    hooked(
        "min_version",
        "version_out_of_range",
        demand('{"job": "db", "hook": "hook_s", "config": {"min_version": §"2.0.1"}}'),
        message='job "db" is 2.0.0, at least 2.0.1',
    ),
    hooked(
        "max_version",
        "version_out_of_range",
        demand('{"job": "db", "hook": "hook_s", "config": {"max_version": §"1.9"}}'),
        message="at most 1.9",
    ),
    hooked("bounds are versions", "bad_version", demand('{"job": "db", "hook": "hook_s", "config": {"min_version": §"two"}}')),
    hooked(
        "who demands has a version",
        "missing_version",
        '§{"hooks": {"hook_a": {"executed_on": ["cli"], "demands": {"job": "db", "hook": "hook_s"}}}}',
        message="demands another job",
    ),
    Row(
        rule="who is demanded has a version",
        code="missing_version",
        files={
            **HOOK,
            **DB,
            MANIFEST: demand('{"job": "db", "hook": "hook_s"}'),
            "jobs/db/manifest.json": '§{"selectors": ["api"], "hooks": {"hook_s": {"executed_on": ["cli"]}}}',
        },
        message="is demanded",
    ),
    Row(
        rule="demands go round in no circle",
        code="demand_cycle",
        files={
            **HOOK,
            **DB,
            MANIFEST: demand('{"job": §"db", "hook": "hook_s"}'),
            "jobs/db/manifest.json": demand('{"job": "api", "hook": "hook_a"}').replace('"hook_a": {', '"hook_s": {'),
        },
        message="api -> db -> api",
    ),
]

FILES = [
    Row(rule="workers.json is needed", code="missing_file", files={"workers.json": None}),
    Row(rule="manifest.json is needed", code="missing_file", files={"jobs/db/Makefile": ""}),
    Row(rule="job names", code="bad_job_name", files={"jobs/Db/manifest.json": '{"selectors": ["api"]}', "jobs/Db/Makefile": ""}),
    Row(rule="a Makefile is needed", code="missing_makefile", files={"jobs/api/Makefile": None}),
    Row(rule="data is reserved", code="reserved_name", files={"jobs/api/data/x": ""}),
    Row(rule="logs is reserved", code="reserved_name", files={"jobs/api/logs": ""}),
    Row(rule="bin is reserved, also as a template", code="reserved_name", files={"jobs/api/bin.j2": ""}),
    Row(rule="links stay in the job", code="link_leaves_job", files={}, links={"jobs/api/conf": "../db/conf"}),
    Row(rule="links are relative", code="link_leaves_job", files={}, links={"jobs/api/conf": "/etc/passwd"}),
    Row(
        rule="links through links stay in the job",
        code="link_leaves_job",
        files={"jobs/api/a/b/f": ""},
        links={"jobs/api/a/b/up": "../..", "jobs/api/a/b/x": "up/../y"},
    ),
    Row(rule="links end somewhere", code="link_loop", files={}, links={"jobs/api/a": "b", "jobs/api/b": "a"}),
    Row(rule="settings are no links", code="not_a_file", files={"bucket.conf": None}, links={"bucket.conf": "other"}),
    Row(
        rule="modules of commands are hooks now",
        code="old_name",
        files={"jobs/api/_modules/command_migrate.py": ""},
        help="_hooks/hook_migrate.py",
    ),
    Row(
        rule="templates end in .j2 now",
        code="old_name",
        files={"jobs/api/conf/app.conf.tpl": "{{ .WorkerIP }}"},
        help="conf/app.conf.j2",
    ),
    Row(
        rule="a template has its result to itself",
        code="duplicate_target",
        files={"jobs/api/app.conf": "", "jobs/api/app.conf.j2": ""},
    ),
    Row(rule="files are UTF-8", code="not_utf8", files={MANIFEST: b'{"version": "\xff"}'}),
    Row(rule="a manifest is not empty", code="empty_file", files={MANIFEST: b""}),
    Row(rule="workers.json is not empty", code="empty_file", files={"workers.json": b" \n"}),
    Row(rule="files are not huge", code="file_too_large", files={MANIFEST: b'{"version": "' + b"1" * 1024 * 1024 + b'"}'}),
    Row(rule="files have no byte order mark", code="byte_order_mark", files={MANIFEST: "\ufeff{}"}),
]

JSON = [
    manifest("broken JSON", "json_syntax", '{"version" §"1"}'),
    manifest("no comments", "json_syntax", "{§// hm\n}"),
    manifest("a key has a value", "json_syntax", '{"version": §}'),
    manifest("keys are given once", "duplicate_key", '{"version": "1",\n §"version": "2"}', message='"version" is given twice'),
    manifest("keys are given once, deep inside", "duplicate_key", '{"resources": {"cpu": {}, §"cpu": {}}}'),
    manifest("NaN is no number", "json_syntax", '{"max_concurrent_starts": §NaN}'),
    manifest("numbers are sane", "number_too_large", '{"max_concurrent_starts": §' + "9" * 5000 + "}"),
    manifest("no U+0000", "nul_character", '{"restart_globs": ["x§\\u0000"]}'),
    manifest("half a surrogate pair", "not_utf8", '{"version": "§\\ud800"}'),
    Row(rule="nesting is sane", code="too_deep", files={MANIFEST: '{"a":' * 900 + "1" + "}" * 900}),
    Row(rule="nesting is sane, whatever its depth", code="too_deep", files={MANIFEST: "[" * 100_000}),
]

EVERY_ROW = [*WORKERS_FILE, *MANIFEST_FILE, *HOOKS, *FILES, *JSON, *TOML, *DISABLED, *CAPACITY]
