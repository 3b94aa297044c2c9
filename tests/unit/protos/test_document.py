"""The reference of the contracts says what the `.proto` files say, all of it, and its links lead somewhere."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]

TOY = """\
syntax = "proto3";

package maand.toy.v1;

import "google/protobuf/timestamp.proto";

// ToyService keeps toys. It is small.
//
//   new -> old
service ToyService {
  // Returns one toy. NOT_FOUND.
  // May be repeated.
  rpc GetToy(GetToyRequest) returns (GetToyResponse);
  // Streams toys | both ways.
  rpc TradeToys(stream GetToyRequest) returns (stream GetToyResponse);
}

// Colour is what it looks like.
enum Colour {
  // Not set.
  COLOUR_UNSPECIFIED = 0;
  // Red, or blue | green.
  COLOUR_RED = 1;
}

// GetToyRequest names a toy.
message GetToyRequest {
  // Which one.
  oneof which {
    // By name.
    string name = 1;
    // By number.
    uint64 number = 2;
  }
}

// GetToyResponse describes it.
message GetToyResponse {
  // Since when.
  google.protobuf.Timestamp since = 1;
  // Colours.
  repeated Colour colours = 2;
  // Prices
  // by shop.
  map<string, uint32> prices = 3 [debug_redact = true];
  // Age. Unset = unknown.
  optional uint32 age = 4;
}

// Nothing has no fields.
message Nothing {}
"""

DOCUMENTED = """\
| Service | What for |
| --- | --- |
| [ToyService](#maand-toy-v1-toyservice) | ToyService keeps toys. |

## maand.toy.v1

### <a id="maand-toy-v1-toyservice"></a>ToyService

ToyService keeps toys. It is small.

```
  new -> old
```

**GetToy** ([GetToyRequest](#maand-toy-v1-gettoyrequest)) → [GetToyResponse](#maand-toy-v1-gettoyresponse)

Returns one toy. NOT_FOUND.
May be repeated.

**TradeToys** (stream of [GetToyRequest](#maand-toy-v1-gettoyrequest)) → stream of [GetToyResponse](#maand-toy-v1-gettoyresponse)

Streams toys | both ways.

### <a id="maand-toy-v1-colour"></a>Colour

Colour is what it looks like.

| Value | Number | Meaning |
| --- | --- | --- |
| `COLOUR_UNSPECIFIED` | 0 | Not set. |
| `COLOUR_RED` | 1 | Red, or blue \\| green. |

### <a id="maand-toy-v1-gettoyrequest"></a>GetToyRequest

GetToyRequest names a toy.

| Field | Type | Meaning |
| --- | --- | --- |
| `name` | string, one of `which` | By name. |
| `number` | uint64, one of `which` | By number. |

### <a id="maand-toy-v1-gettoyresponse"></a>GetToyResponse

GetToyResponse describes it.

| Field | Type | Meaning |
| --- | --- | --- |
| `since` | `Timestamp` | Since when. |
| `colours` | repeated [Colour](#maand-toy-v1-colour) | Colours. |
| `prices` | map of string to uint32, never printed | Prices by shop. |
| `age` | optional uint32 | Age. Unset = unknown. |

### <a id="maand-toy-v1-nothing"></a>Nothing

Nothing has no fields.
"""


@pytest.fixture(scope="module")
def document() -> ModuleType:
    """Load protos/document.py, which is a program and in no package."""
    spec = importlib.util.spec_from_file_location("document", ROOT / "protos/document.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_everything_a_file_says_is_on_the_page_and_nothing_else(document: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "maand_contracts/toy/v1"
    folder.mkdir(parents=True)
    (folder / "toy.proto").write_text(TOY)
    page = document.document(document.read_contracts(tmp_path))
    assert page == f"{document.OPENING}\n{DOCUMENTED}"


def test_every_call_field_and_value_of_the_contracts_is_described(document: ModuleType) -> None:
    page = document.document(document.read_contracts())
    missing = [
        name
        for file in document.read_contracts().file
        for name in (
            *(f"**{method.name}** (" for service in file.service for method in service.method),
            *(f"| `{field.name}` |" for message in file.message_type for field in message.field),
            *(f"| `{value.name}` |" for enum in file.enum_type for value in enum.value),
        )
        if name not in page
    ]
    assert missing == []
    assert "|  |" not in page, "a field or value without a comment"


def test_every_link_leads_to_a_heading(document: ModuleType) -> None:
    page = document.document(document.read_contracts())
    assert set(re.findall(r"\]\(#([^)]*)\)", page)) <= set(re.findall(r'<a id="([^"]*)">', page))


def test_the_committed_page_is_what_the_contracts_say(document: ModuleType) -> None:
    assert document.document(document.read_contracts()) == document.WRITTEN.read_text()
