import json
import socket
from pathlib import Path

import pytest

from keystead.cli.tour.inputs import image_name, plans
from keystead.cli.tour.run import run_tour
from keystead.cli.tour.uses import verify_content
from keystead.keys.administration import draft_key
from keystead.keys.commands import CreateKey
from keystead.keys.framing.tls import certificate_verify_content
from keystead.keys.purposes import PURPOSES, Purpose


def nobodys_address() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{found.getsockname()[1]}"


def test_a_node_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_tour(url=nobodys_address(), token="kso1.x", image=None, as_json=False) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert "no answer" in err


def test_a_node_that_is_not_there_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_tour(url=nobodys_address(), token="kso1.x", image=None, as_json=True) == 3
    assert "no answer" in json.loads(capsys.readouterr().err)["error"]


@pytest.mark.parametrize("name", ["nothing", "."])
def test_an_image_that_cannot_be_read(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run_tour(url=nobodys_address(), token="x", image=tmp_path / name, as_json=False)
    assert status == 1
    assert "expected the image as a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "name"),
    [("python3.11", "python3.11"), ("My Image (2).BIN", "my-image-2-.bin"), ("___", "image")],
)
def test_an_image_is_named_after_its_file(file: str, name: str) -> None:
    assert image_name(Path("/boot") / file) == name


def test_there_is_a_key_of_each_offered_purpose_and_each_can_be_made() -> None:
    planned = plans("image", "ab12")
    assert {plan.purpose for plan in planned} == {
        str(purpose) for purpose, row in PURPOSES.items() if row.offered
    }
    for plan in planned:
        command = CreateKey(
            name=f"tour-{plan.role}",
            purpose=Purpose(plan.purpose),
            algorithm=plan.algorithm,
            policy=plan.policy,
        )
        assert draft_key(command, key_id="k1", now_ms=0)[1] == plan.algorithm


def test_the_tours_own_content_is_the_one_of_the_rfc() -> None:
    """RFC 8446 section 4.4.3 gives this example, for a transcript hash of 32 bytes of 01."""
    content = verify_content("server", b"\x01" * 32)
    assert content.hex() == (
        "20" * 64
        + "544c5320312e332c207365727665722043657274696669636174655665726966790"
        + "0"
        + "01" * 32
    )
    assert content == certificate_verify_content("server", b"\x01" * 32)
