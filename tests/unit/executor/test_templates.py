import pytest

from maand_executor.content.templates import JobTemplates, RenderedFile, TemplateSubject
from maand_executor.errors import TemplateError
from maand_executor.rules.facts import Allocation, AllocationViews, Namespace, Worker

SUBJECT = TemplateSubject(
    allocation=Allocation(
        allocation_id="id-1", job="api", worker="10.0.0.1", index=3, current_version="1.0.0", new_version="2.0.0"
    ),
    worker=Worker(name="10.0.0.1", worker_id="w-1", labels=("api", "worker"), tags={"zone": "a"}),
    bucket_id="bucket",
    job_path="/opt/worker/bucket/jobs/api",
)
VIEWS = AllocationViews(
    namespaces={
        "vars/job/api": Namespace(values={"colour": "blue", "size": "7"}),
        "secrets/job/api": Namespace(values={"token": "hunter2"}, secret=True),
        "vars/job/other": Namespace(values={"hidden": "x"}),
    },
    readable={"id-1": frozenset({"vars/job/api", "secrets/job/api", "vars/bucket"})},
)


def render(text: str, *, mode: int = 0o644, **others: str) -> RenderedFile:
    sources = {"conf/app.conf.j2": text.encode(), **{f"{name}.j2": other.encode() for name, other in others.items()}}
    return JobTemplates("api", sources).render("conf/app.conf.j2", mode, SUBJECT, VIEWS)


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("{{ allocation_id }} {{ allocation_index }} {{ job }} {{ worker_ip }} {{ worker_id }}", "id-1 3 api 10.0.0.1 w-1"),
        ("{{ labels | join(',') }} {{ tags.zone }}", "api,worker a"),
        ("{{ current_version }} {{ new_version }} {{ bucket_id }} {{ job_path }}", "1.0.0 2.0.0 bucket " + SUBJECT.job_path),
        ("{{ get('vars/job/api', 'colour') }}", "blue"),
        ("{{ get('vars/job/api', 'none', 'default') }}", "default"),
        ("{{ get('vars/bucket', 'none', '') }}", ""),
        ("{{ keys('vars/job/api') | join(' ') }}", "colour size"),
        ("{{ secret('none', 'default') }}", "default"),
        ("kept line end\n", "kept line end\n"),
        ("{{ allocation_index == 3 }} {{ 'none' in labels }} {{ 1 }} {{ [true] }}", "true false 1 [True]"),
    ],
)
def test_a_template_sees_the_documented_context(text: str, rendered: str) -> None:
    assert render(text).data.decode() == rendered


def test_the_suffix_is_dropped_and_the_mode_kept() -> None:
    assert render("x", mode=0o755) == RenderedFile(path="conf/app.conf", mode=0o755, data=b"x")


@pytest.mark.parametrize(
    "text", ["{{ secret('token') }}", "{{ get('secrets/job/api', 'token') }}", "{% if secret('token') %}{% endif %}"]
)
def test_a_file_that_used_a_secret_is_for_its_owner_only(text: str) -> None:
    assert render(text).mode == 0o600
    assert render(text).secret


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a\nb\n{{ nope }}", "conf/app.conf.j2:3", "'nope' is undefined"),
        ("\n{{ get('vars/job/api', 'nope') }}", "conf/app.conf.j2:2", '"nope" is not in vars/job/api'),
        ("{{ get('vars/job/other', 'hidden') }}", "conf/app.conf.j2:1", "may not be read"),
        ("\n\n{% if %}", "conf/app.conf.j2:3", "Expected an expression"),
        ("{{ ''.__class__.__mro__ }}", "conf/app.conf.j2:1", "unsafe"),
        ("{{ labels.append('x') }}", "conf/app.conf.j2:1", "unsafe"),
        ("{{ tags.none }}", "conf/app.conf.j2:1", "no attribute 'none'"),
        ("{% include 'part.j2' %}", "part.j2:2", "'nope' is undefined"),
    ],
)
def test_what_a_template_gets_wrong_is_told_with_file_and_line(text: str, place: str, words: str) -> None:
    with pytest.raises(TemplateError, match=words) as caught:
        render(text, part="\n{{ nope }}")
    assert f"workspace/jobs/api/{place}:" in str(caught.value)


def test_a_template_that_is_not_text_names_the_line() -> None:
    with pytest.raises(TemplateError, match=r"app.conf.j2:2: is not UTF-8 text"):
        JobTemplates("api", {"app.conf.j2": b"a\n\xff"}).render("app.conf.j2", 0o644, SUBJECT, VIEWS)


def test_a_rendered_value_never_shows_in_a_repr() -> None:
    assert "hunter2" not in repr(render("{{ secret('token') }}"))
    assert "hunter2" not in repr(VIEWS)


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("a\r\nb {{ job }}\r\n", b"a\r\nb api\r\n"),
        ("{% if job %}\r\na\r\n{% endif %}\r\n", b"\r\na\r\n\r\n"),
        ("a\nb\n", b"a\nb\n"),
        ("a {{ 'x\r\ny' }}", b"a x\r\ny"),
        ("no line end", b"no line end"),
    ],
)
def test_line_ends_stay_as_they_are_written(text: str, rendered: bytes) -> None:
    assert render(text).data == rendered


def test_templates_of_one_job_keep_each_its_own_line_ends() -> None:
    templates = JobTemplates("api", {"win.txt.j2": b"a\r\nb", "unix.txt.j2": b"a\nb"})
    assert [templates.render(path, 0o644, SUBJECT, VIEWS).data for path in ("win.txt.j2", "unix.txt.j2")] == [b"a\r\nb", b"a\nb"]
