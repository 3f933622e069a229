"""What a relay survives: the end of a worker, of a host, an upgrade. Real processes, real sockets of the loopback."""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from relay_process import ROUTING, RelayProcess, environment, relay_process, run_relay, waited

from bench.handover import Traffic
from service.addresses import parse_host_port

pytestmark = pytest.mark.slow

PATIENCE = 10.0


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def tree(relay: RelayProcess) -> list[int]:
    status = relay.status()
    return [status["supervisor"], status["host"], *status["workers"]]


def test_an_upgrade_leaves_the_process_and_its_sockets_and_loses_no_packet():
    with relay_process() as relay, Traffic(relay.listen, ROUTING, rate=1000) as traffic:
        before = relay.status()
        upgraded = relay.upgrade()
        assert (upgraded.returncode, upgraded.stderr) == (0, "")
        assert upgraded.stdout.splitlines()[-1] == "upgraded"
        after = relay.status()
        assert after["supervisor"] == before["supervisor"] == relay.process.pid
        assert after["generation"] == before["generation"] + 1
        assert not set(after["workers"]) & set(before["workers"])
        until(lambda: not is_alive(before["host"]))
        passage = traffic.stop()
        assert passage.sent > 500
        assert passage.lost == 0, passage
        assert relay.metrics()['antiphon_relay_frames_total{direction="up"}'] >= passage.sent
        assert relay.stop()[0] == 0


def test_a_killed_worker_is_back_before_anybody_would_hear_it():
    with relay_process() as relay, Traffic(relay.listen, ROUTING, rate=1000) as traffic:
        time.sleep(0.2)
        [worker] = relay.status()["workers"]
        counted = relay.metrics()['antiphon_relay_frames_total{direction="up"}']
        supervisor, host, _ = tree(relay)
        before = waited(os.getpid(), supervisor, host)
        os.kill(worker, signal.SIGKILL)
        until(lambda: relay.metrics()['antiphon_relay_frames_total{direction="up"}'] > counted)
        assert relay.status()["workers"] != [worker]
        assert relay.metrics()["antiphon_relay_worker_restarts_total"] == 1
        time.sleep(0.2)
        late = waited(os.getpid(), *tree(relay)) - before  # for a CPU of this machine, that others had
        passage = traffic.stop()
        print(f"\nworker killed at 1000 packets/s: {passage.lost} lost, gap {passage.longest_gap:.0f} ms, {late:.3f} s")
        assert passage.longest_gap < 100 + 1000 * late  # 25 ms on a quiet machine
        # Only what the killed one had read and not sent, or half sent, can be gone.
        assert passage.lost <= 128


@pytest.mark.thorough
def test_what_the_kernel_drops_is_counted_once_whoever_counts_and_also_while_nobody_does():
    """Whoever begins must neither count what the one before has counted, nor forget what was lost in between."""
    name = 'antiphon_relay_socket_overflowed_total{socket="listen %s"}'
    came = 'antiphon_relay_socket_datagrams_total{direction="in",socket="listen %s"}'
    with relay_process(ANTIPHON_RELAY_RECEIVE_BUFFER="65536") as relay, socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.connect(parse_host_port(relay.listen))

        def accounts() -> tuple[float, float]:
            metrics = relay.metrics()
            dropped = metrics.get(name % relay.listen, 0)
            return metrics.get(came % relay.listen, 0) + dropped, dropped

        for turn in range(1, 4):
            [worker] = relay.status()["workers"]
            os.kill(worker, signal.SIGSTOP)
            for _ in range(500):
                sock.send(bytes(100))
            os.kill(worker, signal.SIGKILL if turn == 2 else signal.SIGCONT)
            until(lambda: accounts()[0] >= 500 * turn)  # noqa: B023 - asked at once
            if turn == 1:
                assert relay.upgrade().returncode == 0
        time.sleep(1.2)  # a worker asks the kernel once a second
        total, dropped = accounts()
        assert total == 1500
        assert dropped > 500
        assert relay.stop()[0] == 0


@pytest.mark.thorough
def test_a_worker_that_is_stuck_is_replaced():
    with relay_process() as relay, Traffic(relay.listen, ROUTING, rate=100) as traffic:
        [worker] = relay.status()["workers"]
        os.kill(worker, signal.SIGSTOP)
        deadline = time.monotonic() + 30
        while relay.status()["workers"] in ([worker], [None]):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        time.sleep(0.5)
        passage = traffic.stop()
        assert passage.returned > 0
        assert passage.longest_gap < 20_000  # noticed after ten to twelve seconds
        assert relay.stop()[0] == 0


@pytest.mark.thorough
def test_a_host_that_is_stuck_when_its_worker_dies_is_replaced():
    with relay_process() as relay, Traffic(relay.listen, ROUTING, rate=100) as traffic:
        before = relay.status()
        [worker] = before["workers"]
        os.kill(before["host"], signal.SIGSTOP)
        os.kill(worker, signal.SIGKILL)
        deadline = time.monotonic() + 50
        while (now := relay.status())["host"] == before["host"] or now["workers"] in ([worker], [None]):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        time.sleep(0.5)
        passage = traffic.stop()
        assert passage.returned > 0
        assert passage.longest_gap < 40_000  # noticed after 20 to 24 seconds
        assert relay.stop()[0] == 0
        assert not is_alive(before["host"])


@pytest.mark.parametrize("victim", ["supervisor", pytest.param("host", marks=pytest.mark.thorough)])
def test_whoever_is_killed_takes_those_below_along(victim: str):
    with relay_process(ANTIPHON_RELAY_WORKERS="2") as relay:
        supervisor, host, *workers = tree(relay)
        assert len(workers) == 2
        os.kill(supervisor if victim == "supervisor" else host, signal.SIGKILL)
        until(lambda: not any(map(is_alive, (host, *workers))))
        if victim == "supervisor":
            until(lambda: relay.process.poll() is not None)
            return
        until(lambda: None not in relay.status()["workers"] and relay.status()["host"] != host)
        assert relay.status()["supervisor"] == supervisor
        assert relay.stop()[0] == 0


@pytest.mark.thorough
def test_workers_share_the_port_and_have_each_a_trunk_and_a_cpu():
    with relay_process(ANTIPHON_RELAY_WORKERS="2") as relay:
        assert len(set(relay.bound["trunk"])) == 2
        with Traffic(relay.listen, ROUTING, rate=500) as traffic:
            time.sleep(0.3)
            passage = traffic.stop()
        assert passage.lost == 0
        metrics = relay.metrics()
        shares = [metrics[f'antiphon_relay_worker_frames_total{{direction="up",worker="{n}"}}'] for n in (0, 1)]
        assert min(shares) > 0
        assert sum(shares) == metrics['antiphon_relay_frames_total{direction="up"}'] >= passage.sent
        affinities = [os.sched_getaffinity(pid) for pid in relay.status()["workers"]]
        assert all(len(cpus) == 1 for cpus in affinities)
        assert relay.stop()[0] == 0


@pytest.mark.thorough
def test_an_upgrade_to_what_cannot_be_keeps_the_old(tmp_path: Path):
    file = tmp_path / "antiphon.toml"
    file.write_text("[relay]\nidle_seconds = 60\n")
    control = str(tmp_path / "control")
    with relay_process("--config", str(file), ANTIPHON_RELAY_CONTROL=control) as relay:
        assert Path(control).stat().st_mode & 0o777 == 0o600
        before = relay.status()
        for line, complaint in (
            ("workers = 3", "relay.workers: an upgrade cannot change it to 3; restart the relay"),
            ("idle_second = 9", "relay.idle_second: unknown key"),
        ):
            file.write_text(f"[relay]\n{line}\n")
            upgraded = relay.upgrade()
            assert upgraded.returncode == 1
            assert f"the old generation goes on: {complaint}" in upgraded.stderr
            assert relay.status() == before
        assert relay.metrics()['antiphon_relay_upgrades_total{outcome="failed"}'] == 2
        with Traffic(relay.listen, ROUTING, rate=200) as traffic:
            time.sleep(0.1)
            assert traffic.stop().lost == 0
        file.write_text("[relay]\nidle_seconds = 50\n")
        relay.process.send_signal(signal.SIGUSR2)
        until(lambda: relay.metrics()['antiphon_relay_upgrades_total{outcome="done"}'] == 1)
        assert relay.stop()[0] == 0


@pytest.mark.thorough
def test_an_upgrade_that_takes_too_long_is_ended_and_the_old_goes_on():
    with relay_process(ANTIPHON_RELAY_UPGRADE_SECONDS="0.05") as relay:
        before = relay.status()
        upgraded = relay.upgrade()
        assert upgraded.returncode == 1
        assert "the old generation goes on: not ready within 0.05 s" in upgraded.stderr
        assert relay.status() == before
        assert relay.stop()[0] == 0


@pytest.mark.thorough
def test_upgrade_says_when_it_knows_nobody_to_ask():
    asked = run_relay("upgrade", environment(ANTIPHON_RELAY_CONTROL="/nowhere/control"))
    assert (asked.returncode, asked.stdout) == (1, "")
    assert asked.stderr == "relay: nobody answers at /nowhere/control: No such file or directory\n"
    asked = run_relay("upgrade", environment())
    assert (asked.returncode, asked.stdout) == (1, "")
    assert "set relay.control, or send it SIGUSR2" in asked.stderr
    asked = run_relay("upgrade", environment(ANTIPHON_RELAY_LISTEN="127.0.0.1:1"))
    assert (asked.returncode, asked.stdout) == (1, "")
    assert "a relay is asked by the first relay.listen that it was started with" in asked.stderr


@pytest.mark.slow
def test_upgrade_under_another_first_address_names_the_relays_that_run_here():
    with relay_process() as relay:
        asked = run_relay("upgrade", environment(ANTIPHON_RELAY_LISTEN="127.0.0.1:1"))
        assert asked.returncode == 1
        assert "put the old one first in ANTIPHON_RELAY_LISTEN; here run " in asked.stderr
        assert relay.listen in asked.stderr


@pytest.mark.slow
def test_an_upgrade_to_code_that_does_not_load_says_why(tmp_path: Path):
    with relay_process(PYTHONPATH=str(tmp_path)) as relay:
        before = relay.status()
        (tmp_path / "numpy.py").write_text("raise ImportError('broken on purpose')\n")
        upgraded = relay.upgrade(PYTHONPATH="")
        assert upgraded.returncode == 1
        assert "goes on: the new code does not load: ImportError: broken on purpose\n" in upgraded.stderr
        assert relay.status() == before
        assert "Traceback" in relay.stop()[1]


@pytest.mark.parametrize(
    "talks",
    [
        pytest.param(True, id="the agent talks", marks=pytest.mark.thorough),
        pytest.param(False, id="the agent only answers"),
    ],
)
def test_a_relay_that_was_killed_and_started_again_is_told_its_calls_at_once(talks: bool):
    addresses = {"ANTIPHON_RELAY_ADMIN": ""}
    with relay_process(**addresses) as relay, Traffic(relay.listen, ROUTING, rate=1000, talks=talks) as traffic:
        time.sleep(0.2)
        addresses |= {"ANTIPHON_RELAY_LISTEN": relay.listen, "ANTIPHON_RELAY_TRUNK": str(relay.bound["trunk"])}
        killed = time.monotonic()
        relay.kill()
        with relay_process(**addresses) as again:
            restart = time.monotonic() - killed  # without an admin port, it says that it is ready when it serves
            [host] = children(again.process.pid)  # without an admin port it has no status
            processes = [os.getpid(), again.process.pid, host, *children(host)]
            before = waited(*processes)
            time.sleep(0.3)
            waits = waited(*processes) - before  # for a CPU of this machine, that others had
            passage = traffic.stop()
    late = passage.longest_gap_of_one - 1000 * restart
    gap = passage.longest_gap_of_one
    print(
        f"\nrelay killed: back after {1000 * restart:.0f} ms, gap of a caller {gap:.0f} ms, CPU awaited for {waits:.3f} s"
    )
    assert passage.longest_gap_of_one > 500 * restart  # it was really gone
    # By design: a hello every 50 ms at most, and each caller sends every 50 ms here. Others may have had the CPU.
    assert late < 60 + 50 + 1000 * waits
    assert passage.returned > 250  # some 200 before


@pytest.mark.thorough
def test_twenty_upgrades_at_4000_packets_a_second_lose_nothing():
    with relay_process() as relay, Traffic(relay.listen, ROUTING, rate=4000) as traffic:
        for _ in range(20):
            assert relay.upgrade().returncode == 0
        passage = traffic.stop()
        assert relay.status()["generation"] == 21
        assert relay.stop()[0] == 0
    print(f"\n20 upgrades: {passage.sent} sent, {passage.lost} lost, longest gap {passage.longest_gap:.0f} ms")
    assert passage.lost == 0, passage


def children(pid: int) -> list[int]:
    """Living ones."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            state, parent, *_ = path.read_text().rpartition(")")[2].split()
            if int(parent) == pid and state != "Z":
                found.append(int(path.parent.name))
    return found


@pytest.mark.thorough
def test_upgrades_at_once_while_hosts_and_workers_are_killed_end_with_one_generation_that_serves():
    source = random.Random(3)
    with relay_process(ANTIPHON_RELAY_WORKERS="2") as relay, Traffic(relay.listen, ROUTING, rate=200) as traffic:
        supervisor = relay.process.pid
        for turn in range(12):
            for _ in range(source.choice((1, 2, 3))):
                os.kill(supervisor, signal.SIGUSR2)
            time.sleep(source.choice((0.0, 0.05, 0.3, 0.6, 1.0)))  # a host needs about one second until it is ready
            hosts = children(supervisor)
            victims = hosts if turn % 3 == 0 else [worker for host in hosts for worker in children(host)]
            if victims:
                with suppress(ProcessLookupError):
                    os.kill(source.choice(victims), signal.SIGKILL)
            time.sleep(source.choice((0.1, 1.0)))
        deadline = time.monotonic() + 30
        while len(children(supervisor)) != 1 or not all(relay.status()["workers"]):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        status = relay.status()
        assert status["supervisor"] == supervisor
        assert children(supervisor) == [status["host"]]
        assert sorted(children(status["host"])) == sorted(status["workers"])
        arrived = relay.metrics()['antiphon_relay_frames_total{direction="up"}']
        until(lambda: relay.metrics()['antiphon_relay_frames_total{direction="up"}'] > arrived + 100)
        passage = traffic.stop()
        # What a killed worker had read and not yet sent, or counted, can be gone; none of what waited for the next one.
        assert passage.lost <= 128, passage
        assert relay.stop()[0] == 0


@pytest.mark.thorough
def test_upgrades_without_descriptors_to_spare_fail_and_leave_nothing_behind():
    with relay_process(ANTIPHON_RELAY_ADMIN="") as relay, Traffic(relay.listen, ROUTING, rate=200) as traffic:
        supervisor = relay.process.pid
        [first] = children(supervisor)
        time.sleep(0.3)
        highest = max(int(path.name) for path in Path(f"/proc/{supervisor}/fd").iterdir())
        ever = Path(f"/proc/{supervisor}/task/{supervisor}/children")  # zombies are among them
        for spare in range(4):  # with the last ones it may go well
            resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (highest + 1 + spare, 1024))
            os.kill(supervisor, signal.SIGUSR2)
            time.sleep(0.3)
            if spare < 2:
                assert children(supervisor) == [first]
        until(lambda: len(ever.read_text().split()) == 1)
        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (1024, 1024))
        upgraded = relay.upgrade()
        assert (upgraded.returncode, upgraded.stderr) == (0, "")
        passage = traffic.stop()
        assert passage.lost == 0, passage
        status, log = relay.stop()
        assert status == 0
        assert log.count("no new process") >= 2
