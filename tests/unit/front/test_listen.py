from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from keystead.errors import StartupError
from keystead.front.listen import check_listen, check_tls, clear_unix_socket, free_port


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.1.2.3", "127.1.2.3"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1"),
        ("localhost", "127.0.0.1"),
    ],
)
def test_loopback_may_be_in_clear(host: str, address: str, *, tls: bool) -> None:
    expected = check_listen(host, tls)
    assert socket.inet_pton(
        socket.AF_INET6 if ":" in address else socket.AF_INET, expected
    ) == socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "10.0.0.1", "8.8.8.8", "::ffff:10.0.0.1", "fe80::1"],  # noqa: S104  an address in clear, to be refused
)
def test_other_addresses_need_tls(host: str) -> None:
    assert check_listen(host, tls=True)
    with pytest.raises(StartupError, match="in clear") as refused:
        check_listen(host, tls=False)
    assert "tls_cert" in refused.value.hint


@pytest.mark.parametrize("host", ["", "example.com", "localhost.", "127.1", "0x7f000001", "*"])
@pytest.mark.parametrize("tls", [False, True])
def test_names_are_refused(host: str, *, tls: bool) -> None:
    with pytest.raises(StartupError, match="expected an IP address"):
        check_listen(host, tls)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_port_0_is_one_that_is_free(address: str) -> None:
    port = free_port(address, 0)
    assert 0 < port < 65536
    assert free_port(address, port) == port


def test_a_used_port_is_named() -> None:
    with socket.socket() as other:
        # Not even SO_REUSEPORT, which Granian sets, lets a second front in unseen.
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(StartupError, match=f"port {port} on 127.0.0.1 is in use") as refused:
            free_port("127.0.0.1", port)
    assert "choose another" in refused.value.hint


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_out_of_range_is_refused(port: int) -> None:
    with pytest.raises(StartupError, match="expected a port"):
        free_port("127.0.0.1", port)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(StartupError, match="not an address of this machine"):
        free_port("192.0.2.1", 0)


def test_a_socket_left_behind_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "front.sock"
    clear_unix_socket(path)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    clear_unix_socket(path)
    assert not path.exists()


def test_a_socket_in_use_stays(tmp_path: Path) -> None:
    path = tmp_path / "front.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(StartupError, match="already"):
            clear_unix_socket(path)
    assert path.exists()


def test_what_is_no_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "front.sock"
    path.write_text("mine")
    with pytest.raises(StartupError, match="no socket"):
        clear_unix_socket(path)
    assert path.read_text() == "mine"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="there is no folder"):
        clear_unix_socket(tmp_path / "none" / "front.sock")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("tls")
    return make_pair(folder, "a")


def make_pair(folder: Path, name: str) -> tuple[str, str]:
    cert, key = str(folder / f"{name}.pem"), str(folder / f"{name}.key")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-days", "2", "-out", cert, "-keyout", key),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


def test_no_files_are_no_tls() -> None:
    assert check_tls(None, None) is None


def test_a_certificate_and_its_key_are_taken(pair: tuple[str, str]) -> None:
    assert check_tls(*pair) == (Path(pair[0]), Path(pair[1]))


def test_one_file_alone_is_refused(pair: tuple[str, str]) -> None:
    for cert, key in ((pair[0], None), (None, pair[1])):
        with pytest.raises(StartupError, match="together"):
            check_tls(cert, key)


def test_a_missing_file_is_named(pair: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="cannot read"):
        check_tls(pair[0], str(tmp_path / "none.key"))


def test_the_key_of_another_certificate_is_refused(pair: tuple[str, str], tmp_path: Path) -> None:
    _, other = make_pair(tmp_path, "b")
    with pytest.raises(StartupError, match="no certificate with its key"):
        check_tls(pair[0], other)


def test_an_encrypted_key_is_refused_and_nobody_is_asked(
    pair: tuple[str, str], tmp_path: Path
) -> None:
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "pkey", "-in", pair[1], "-aes256", "-passout", "pass:x", "-out", str(locked)],
        check=True,
        capture_output=True,
    )
    with pytest.raises(StartupError, match="encrypted"):
        check_tls(pair[0], str(locked))
