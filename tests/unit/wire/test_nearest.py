from maand_wire.nearest import did_you_mean, nearest_name, nearest_or_known


def test_the_nearest_name_is_offered() -> None:
    assert nearest_name("deploi", ["deploy", "build"]) == "deploy"
    assert did_you_mean("deploi", ["deploy", "build"]) == 'did you mean "deploy"?'
    assert did_you_mean("zzz", ["deploy", "build"]) == ""


def test_the_case_of_a_name_does_not_matter() -> None:
    assert nearest_name("API", ["api", "web"]) == "api"
    assert nearest_name("makefil", ["Makefile"]) == "Makefile"


def test_without_a_near_name_the_known_ones_are_listed() -> None:
    assert nearest_or_known("zzz", ["b", "a"]) == "known: a, b"
    assert nearest_or_known("zzz", []) == ""
    assert nearest_or_known("zzz", "abcdefghij") == "known: a, b, c, d, e, f, g, h, …"
