"""The stage `train` under `kill -9` at random points: nothing is lost, and every bit is the same at the end."""

import random
import signal

import pytest
from helpers.processes import finish, start, wait_for
from helpers.trainings import assert_same, saved, state

from bitdistiller.distillation import checkpoints
from bitdistiller.recipes import as_text
from bitdistiller.stages.files import read_json

KILLS_IN_A_CHAIN = 4
"""The gate closes at five silent deaths in a row without progress."""


def finish_and_compare(server, inputs, output, short):
    answer = server(short[0], inputs, output)
    assert answer["code"] == 0, (answer, server.log.read_text())
    assert_same(output, short[1])
    assert not list(output.rglob(".*"))
    assert not list(output.parent.glob(".*"))


@pytest.fixture(scope="module")
def lines(server, inputs, short, tmp_path_factory):
    """How many lines of the package a whole run executes, and how many of them while it saves."""
    root = tmp_path_factory.mktemp("lines")
    counts = [
        server(short[0], inputs, root / str(saving), line=10**9, saving=saving)["lines"] for saving in (False, True)
    ]
    assert counts[0] > counts[1] > 400
    return counts


def draw(pick, lines, whole, step):
    """A random way to die: anywhere, at a line of a save, or in the middle of writing a file of one."""
    kind = pick.choice(["anywhere", "saving", "writing"])
    if kind == "anywhere":
        return {"line": pick.randint(1, lines[0])}
    if kind == "saving":
        return {"line": pick.randint(1, lines[1] // 4), "saving": True}
    return {"bytes": pick.randint(0, whole), "step": step}


def kill_at_random(server, inputs, short, lines, root, kills, seed):
    """Runs that are killed up to four times each and then end by themselves, until there were `kills` kills."""
    pick, deaths, chain = random.Random(seed), [], 0
    largest = (short[1] / "student" / "model.safetensors").stat().st_size
    while len(deaths) < kills:
        output, chain = root / str(chain) / "train", chain + 1
        for _ in range(min(KILLS_IN_A_CHAIN, kills - len(deaths))):
            done = max(
                (n for n in saved(output) if (state(output) / f"checkpoint-{n}" / checkpoints.MARKER).exists()),
                default=0,
            )
            doom = draw(pick, lines, 2 * largest - 1, done + 2)
            answer = server(short[0], inputs, output, **doom)
            if answer["code"] == 0:
                break
            assert answer["code"] in (-signal.SIGKILL, -signal.SIGXFSZ), (doom, answer, server.log.read_text())
            deaths.append(doom)
        finish_and_compare(server, inputs, output, short)
    return deaths


def test_killed_at_random_points(server, inputs, short, lines, tmp_path):
    deaths = kill_at_random(server, inputs, short, lines, tmp_path, 4, seed=2)
    assert len({tuple(sorted(doom)) for doom in deaths}) == 3  # anywhere, at a line of a save, while writing


@pytest.mark.slow
def test_killed_at_twenty_random_points(server, inputs, short, lines, tmp_path):
    deaths = kill_at_random(server, inputs, short, lines, tmp_path, 20, seed=7)
    assert len(deaths) == 20


@pytest.mark.parametrize("part", ["weights", "seal", "prune"])
def test_killed_while_a_checkpoint_is_written(server, inputs, short, tmp_path, part):
    """Between weights and optimizer state, before the marker, and before older ones are removed."""
    output = tmp_path / "train"
    assert server(short[0], inputs, output, part=part, step=6)["code"] == -signal.SIGKILL
    assert saved(output) == [2, 4, 6]
    assert (state(output) / "checkpoint-6" / "weights.safetensors").exists()
    server.log.write_text("")
    finish_and_compare(server, inputs, output, short)
    attempts = read_json(output / "provenance.json")["attempts"]
    assert [attempt.get("outcome") for attempt in attempts] == [None, "finished"]


def command(recipe, inputs, output):
    flags = [part for name, path in inputs.items() for part in (f"--{name}", path)]
    return ["-m", "bitdistiller", "train", *flags, "--recipe", as_text(recipe), "--output", output]


def test_the_command_killed_in_the_middle_then_run_again(server, inputs, short, tmp_path):
    process = start(*command(short[0], inputs, tmp_path / "train"))
    marker = state(tmp_path / "train") / "checkpoint-2" / checkpoints.MARKER
    wait_for(marker.exists, process, 120)
    process.kill()
    assert finish(process)[0] == -signal.SIGKILL
    assert not (tmp_path / "train").exists()
    finish_and_compare(server, inputs, tmp_path / "train", short)


def test_sigterm_ends_the_command_with_75_and_the_next_attempt_goes_on(server, inputs, short, tmp_path):
    process = start(*command(short[0], inputs, tmp_path / "train"))
    wait_for((state(tmp_path / "train") / "gamma.json").exists, process, 120)
    process.terminate()
    code, output = finish(process)
    assert code == 75, output
    assert "stopped: asked to stop by SIGTERM; progress is saved and the same command goes on from here" in output
    assert len(saved(tmp_path / "train")) >= 1
    finish_and_compare(server, inputs, tmp_path / "train", short)
