"""Sockets: who may connect, what is in the way of a listener, and who hears of its end?"""

import errno
import grp
import os
import socket
from pathlib import Path

import pytest

from elemta.config.types import Listen
from elemta.daemon import sockets
from harness.daemon import free_port


@pytest.fixture
def place(tmp_path):
    return Listen(path=str(tmp_path / "new" / "x.sock"))


@pytest.fixture
def opened(place):
    with sockets.listen(place, "nogroup") as listener:
        yield listener


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: others may give nothing to a group that is not theirs")
def test_it_is_for_the_group_that_is_named(place, opened):
    found = Path(place.path).stat()
    assert (found.st_gid, found.st_mode & 0o777) == (grp.getgrnam("nogroup").gr_gid, 0o660)


def test_a_group_that_there_is_not_is_told(place, caplog):
    sockets.listen(place, "nosuchgroup").close()
    assert f"there is no group nosuchgroup: only our own group may connect to {place.path}" in caplog.text


def test_a_group_to_which_we_may_not_give_it_is_told(place, caplog, monkeypatch):
    def chown(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", chown)
    sockets.listen(place, "nogroup").close()
    assert f"not allowed to give {place.path} to the group nogroup" in caplog.text


def test_files_made_later_have_the_modes_they_had_before(place):
    before = os.umask(0o022)
    try:
        sockets.listen(place, "nogroup").close()
        assert os.umask(before) == 0o022
    finally:
        os.umask(before)


@pytest.mark.parametrize("inet", [False, True], ids=["unix", "inet"])
def test_who_is_too_late_for_a_connection_does_not_wait_for_the_next(place, inet):
    where = Listen(host="127.0.0.1", port=free_port()) if inet else place
    with sockets.listen(where, "nogroup") as listener, pytest.raises(BlockingIOError):
        listener.accept()


def test_one_that_accepts_nobody_is_not_waited_for(tmp_path):
    path = str(tmp_path / "x.sock")
    with socket.socket(socket.AF_UNIX) as full, socket.socket(socket.AF_UNIX) as client:
        full.bind(path)
        full.listen(0)
        client.connect(path)
        with pytest.raises(sockets.SocketError, match="Resource temporarily unavailable"):
            sockets.listen(Listen(path=path), "nogroup")


def test_a_port_is_free_again_at_once_after_connections_that_we_ended():
    where = Listen(host="127.0.0.1", port=free_port())
    with sockets.listen(where, "") as listener, socket.create_connection((where.host, where.port)) as client:
        listener.setblocking(True)
        listener.accept()[0].close()
        client.recv(1)
    sockets.listen(where, "").close()


def test_a_file_in_its_place_is_left_there(tmp_path):
    (tmp_path / "x.sock").write_text("mail")
    with pytest.raises(sockets.SocketError) as raised:
        sockets.listen(Listen(path=str(tmp_path / "x.sock")), "nogroup")
    assert raised.value.strerror == f"{tmp_path}/x.sock exists and is no socket; remove it or listen elsewhere"
    assert (tmp_path / "x.sock").read_text() == "mail"


@pytest.mark.filterwarnings("ignore:Exception ignored")  # what could not be bound is closed when it is forgotten
def test_a_port_that_is_taken_is_told():
    with socket.create_server(("127.0.0.1", 0)) as other:
        where = Listen(host="127.0.0.1", port=other.getsockname()[1])
        with pytest.raises(sockets.SocketError, match=f"cannot listen on inet:127.0.0.1:{where.port}: Address already"):
            sockets.listen(where, "")


def test_who_waits_to_be_accepted_hears_of_the_end(place, opened):
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        for client in first, second:
            client.settimeout(5)
            client.connect(place.path)
        with opened.dup():  # as that of another process
            sockets.shut(opened)
            assert [client.recv(1) for client in (first, second)] == [b"", b""]
            with socket.socket(socket.AF_UNIX) as third, pytest.raises(ConnectionRefusedError):
                third.connect(place.path)
    sockets.remove(opened, place)
    assert not os.path.lexists(place.path)


def test_one_whose_directory_may_not_be_looked_into_is_no_trouble(place, opened, monkeypatch):
    def lstat(_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("pathlib.Path.lstat", lstat)
    assert sockets.unreachable(opened, place) == ""


def test_no_answer_waits_for_more_to_send():
    where = Listen(host="127.0.0.1", port=free_port())
    with sockets.listen(where, "") as listener, socket.create_connection((where.host, where.port)):
        listener.setblocking(True)
        with listener.accept()[0] as accepted:  # else it costs 40 ms a message
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
