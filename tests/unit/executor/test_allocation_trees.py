"""What goes to a worker, and what of it is remembered."""

import pytest

from maand_executor.content.allocation_trees import AllocationTree, PathClash, make_tree, own_contents, split_job
from maand_executor.content.templates import JobTemplates, TemplateSubject
from maand_executor.rules.decisions import digest_of_content
from maand_executor.rules.facts import (
    Allocation,
    AllocationCertificate,
    AllocationViews,
    Certificates,
    JobFile,
    Namespace,
    Worker,
)

SUBJECT = TemplateSubject(
    allocation=Allocation(allocation_id="id", job="api", worker="w"), worker=Worker(name="w"), bucket_id="b", job_path="/opt"
)
VIEWS = AllocationViews(
    namespaces={"secrets/job/api": Namespace(values={"token": "hunter2"}, secret=True)},
    readable={"id": frozenset({"secrets/job/api"})},
)


def file(path: str, mode: int = 0o644) -> JobFile:
    return JobFile(path=path, mode=mode, sha256=digest_of_content(path.encode()))


def tree(*files: JobFile, certificates: Certificates = Certificates(), **templates: str) -> AllocationTree:  # noqa: B008 - frozen
    content = split_job("api", files)
    sources = {f"{name}.j2": text.encode() for name, text in templates.items()}
    compiled = JobTemplates("api", sources)
    rendered = [compiled.render(one.path, one.mode, SUBJECT, VIEWS) for one in content.templates]
    return make_tree(content, rendered, certificates, allocation_id="id")


def test_hooks_manifest_and_variables_stay_with_maand() -> None:
    ours = ("_hooks/hook_a.py", "_prometheus/alerts/api.yml", "_prometheus/scrape.yml.j2", "manifest.json", "vars.toml")
    content = split_job("api", [file(path) for path in (*ours, "Makefile", "x/vars.toml")])
    assert [entry.path for entry in content.plain] == ["Makefile", "x/vars.toml"]
    assert not content.varies


def test_a_template_becomes_the_file_without_its_suffix() -> None:
    made = tree(file("app.j2", 0o755), app="hello")
    assert [(one.path, one.mode, one.sha256) for one in made.files] == [("app", 0o100755, digest_of_content(b"hello"))]


def test_a_file_rendered_with_a_secret_is_private_and_its_text_is_not_kept() -> None:
    made = tree(file("app.j2"), file("open.j2"), app="{{ secret('token') }}", open="plain")
    assert {one.path: one.mode for one in made.files} == {"app": 0o100600, "open": 0o100644}
    assert own_contents(made) == {digest_of_content(b"plain"): b"plain"}
    assert "hunter2" not in repr(made)


def test_a_symbolic_link_is_remembered_by_its_target() -> None:
    made = tree(JobFile(path="current", mode=0o644, link_target="releases/1"))
    assert made.files[0].sha256 == digest_of_content(b"releases/1")
    assert made.entries[0].link_target == "releases/1"


def test_certificates_go_along_with_private_keys() -> None:
    leaf = AllocationCertificate(allocation_id="id", name="tls", certificate_pem="crt", private_key_pem="key")
    made = tree(file("Makefile"), certificates=Certificates(ca_certificate_pem="ca", leaves=(leaf,)))
    assert {one.path: one.mode for one in made.files} == {
        "Makefile": 0o100644,
        "certs/ca.crt": 0o100644,
        "certs/tls.crt": 0o100644,
        "certs/tls.key": 0o100600,
    }
    assert own_contents(made) == {}


def test_a_job_without_certificates_gets_no_ca() -> None:
    assert [one.path for one in tree(file("Makefile"), certificates=Certificates(ca_certificate_pem="ca")).files] == ["Makefile"]


def test_a_file_and_a_template_of_the_same_name_clash() -> None:
    with pytest.raises(PathClash, match="app"):
        tree(file("app"), file("app.j2"), app="x")
