"""Contexts: kept privately, chosen by flag, variable or once and for all; what is wrong with the file is told with its place."""

import stat
from pathlib import Path

import pytest

from maand_cli.errors import InvalidFile, UnknownName, Usage
from maand_cli.local.contexts import Context, add_context, choose_context, contexts_file, read_contexts, use_context
from tests.testbed.authority import DAY, TestAuthority
from tests.unit.cli.conftest import Maand
from tests.unit.cli.fake_catalog import FakeCatalog

CLUSTER = Context(catalog="10.0.0.1:7600,10.0.0.2:7600", ca="/ca.crt", token_file="/t", certificate="/c", key="/k")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config" / "maand" / "contexts.toml"


def chosen(file: Path, given: str = "", **environment: str) -> tuple[str, Context | None]:
    return choose_context(given, environment={"XDG_CONFIG_HOME": str(file.parent.parent), **environment})


def test_the_file_is_below_the_users_configuration() -> None:
    assert contexts_file({"XDG_CONFIG_HOME": "/x"}) == Path("/x/maand/contexts.toml")
    assert contexts_file({"HOME": "/home/me"}) == Path("/home/me/.config/maand/contexts.toml")


def test_what_was_added_is_read_back_and_private(file: Path) -> None:
    assert not add_context(file, "prod.eu-1", CLUSTER)
    assert read_contexts(file).named == {"prod.eu-1": CLUSTER}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert add_context(file, "prod.eu-1", Context(catalog="x:1"))
    assert read_contexts(file).named == {"prod.eu-1": Context(catalog="x:1")}


def test_the_flag_wins_over_the_variable_and_that_over_what_was_chosen(file: Path) -> None:
    for name in ("a", "b", "c"):
        add_context(file, name, Context(catalog=f"{name}:1"))
    assert chosen(file) == ("local", None)
    use_context(file, "a")
    assert chosen(file) == ("a", Context(catalog="a:1"))
    assert chosen(file, MAAND_CONTEXT="b") == ("b", Context(catalog="b:1"))
    assert chosen(file, "c", MAAND_CONTEXT="b") == ("c", Context(catalog="c:1"))
    assert chosen(file, "local", MAAND_CONTEXT="b") == ("local", None)


def test_an_address_in_the_environment_wins_over_what_was_chosen_but_not_over_a_name(file: Path) -> None:
    add_context(file, "a", Context(catalog="a:1"))
    use_context(file, "a")
    assert chosen(file, MAAND_CATALOG_ADDRESS="x:1") == ("", None)
    assert chosen(file, "a", MAAND_CATALOG_ADDRESS="x:1") == ("a", Context(catalog="a:1"))


def test_a_context_becomes_endpoints() -> None:
    endpoint = CLUSTER.catalog_endpoint()
    assert (endpoint.address, endpoint.token_file) == (CLUSTER.catalog, Path("/t"))
    assert endpoint.tls is not None
    assert (endpoint.tls.ca, endpoint.tls.certificate, endpoint.tls.key) == (Path("/ca.crt"), Path("/c"), Path("/k"))
    assert CLUSTER.executor_endpoint() is None


def test_an_unknown_context_names_the_known_ones(file: Path) -> None:
    add_context(file, "a", CLUSTER)
    with pytest.raises(UnknownName, match='no such context "b"') as caught:
        chosen(file, "b")
    assert "local, a" in caught.value.help
    with pytest.raises(UnknownName):
        use_context(file, "b")


@pytest.mark.parametrize("name", ["local", "", "a b", "-a", "a/b", "x" * 64])
def test_some_names_cannot_be_contexts(file: Path, name: str) -> None:
    with pytest.raises(Usage, match="cannot be the name"):
        add_context(file, name, CLUSTER)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[contexts", "contexts.toml"),
        ("contexts = 3", "contexts must be tables"),
        ("[contexts.a]\n", "needs `catalog`"),
        ("[contexts.a]\ncatalog = 3\n", "only text"),
        ("[contexts.a]\ncatalog = 'x:1'\ntoken = 'ma_1'\n", 'unknown key "token"'),
    ],
)
def test_a_broken_file_says_what_is_wrong(file: Path, text: str, words: str) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(text)
    with pytest.raises(InvalidFile) as caught:
        chosen(file)
    assert words in f"{caught.value.found[0].file} {caught.value}"


def test_commands_speak_to_the_context_that_was_chosen(maand: Maand, fake: FakeCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAAND_CATALOG_ADDRESS")
    assert maand("context", "add", "fake", "--catalog", fake.address).code == 0
    assert fake.address in maand("--context", "fake", "info").out
    assert maand("context", "use", "fake").code == 0
    assert fake.address in maand("info").out
    assert [row.split()[:2] for row in maand("context", "list").out.splitlines()[1:]] == [["-", "local"], ["*", "fake"]]
    said = maand("--context", "nobody", "info")
    assert (said.code, 'no such context "nobody"' in said.err) == (2, True)


def test_an_expired_certificate_of_ones_own_ends_with_authentication_failed(maand: Maand, tmp_path: Path) -> None:
    authority = TestAuthority(tmp_path / "ca")
    tls = authority.files("me", lives=(-2 * DAY, -DAY))
    files = ("--ca", str(tls.ca), "--certificate", str(tls.certificate), "--key", str(tls.key))
    assert maand("context", "add", "late", "--catalog", "127.0.0.1:1", *files).code == 0
    said = maand("--context", "late", "info")
    assert (said.code, "me.crt expired on" in said.err) == (5, True)
