from pathlib import Path

import pytest

from autoresearch_mcp.errors import TaskError
from autoresearch_mcp.task import bundled_tasks, expand, parse_task
from conftest import ROOT, TOY


def test_the_default_task_is_valid_in_every_preset():
    text = (ROOT / "harness" / "autoresearch.toml").read_text()
    for preset, budget in (("tiny", 8), ("cpu", 60), ("gpu", 300), ("gpu-8", 300), ("gpu-141", 300), ("mps", 300)):
        task = parse_task(text.replace('preset = "cpu"', f'preset = "{preset}"'))
        assert (task.preset, task.run.budget_seconds) == (preset, budget)
        assert (task.read_tool, task.get_tool) == ("read_train", "get_val_bpb")
        assert (task.run.device == "gpu") == preset.startswith("gpu")


def test_tool_names_follow_the_file_and_the_metric():
    task = parse_task(TOY.replace('"work.py"', '"skills/My Skill-2.md"').replace('name = "score"', 'name = "eval_score"'))
    assert (task.read_tool, task.get_tool) == ("read_my_skill_2", "get_eval_score")


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        (('goal = "Raise', 'gaol = "Raise'), 3, "no such key"),
        (("budget_seconds = 20", 'budget_seconds = "long"'), 12, "valid number"),
        (("budget_seconds = 20", "budget_seconds = -1"), 12, "greater than 0"),
        (
            ("budget_seconds = 20", "budget_seconds = 20\nresources = { CPU = 1 }"),
            13,
            "no name for a resource of your own: say cpus = N",
        ),
        (("budget_seconds = 20", "budget_seconds = 20\nresources = { seat = 5000 }"), 13, "less than or equal to 4096"),
        (('direction = "maximize"', 'direction = "up"'), 18, "'minimize' or 'maximize'"),
        (('editable = "work.py"', 'editable = "../work.py"'), 6, "inside the task's folder"),
        (('editable = "work.py"', 'editable = "/etc/passwd"'), 6, "inside the task's folder"),
        (('editable = "work.py"', 'editable = "score.py"'), None, "also read-only"),
        (('editable = "work.py"', 'editable = "reference.md"'), None, "collides"),
        (("progress = 'step (?P<x>", "progress = 'step (?P<x"), 14, "not a regular expression"),
        (("progress = 'step (?P<x>", "progress = 'step (?P<z>"), 14, "named groups"),
        (("oom =", "out_of_memory ="), 22, "no failure name"),
        (("[metric]", "[metric"), 16, "not valid TOML"),
    ],
)
def test_a_mistake_is_told_with_its_line(change: tuple[str, str], line: int | None, words: str):
    assert change[0] in TOY
    with pytest.raises(TaskError) as caught:
        parse_task(TOY.replace(*change), "autoresearch.toml")
    assert words in str(caught.value)
    if line is not None:
        assert f"line {line}" in str(caught.value)


def test_a_missing_key_is_named():
    with pytest.raises(TaskError, match=r"metric\.direction: this key is required"):
        parse_task(TOY.replace('direction = "maximize"\n', ""))


def test_an_unknown_preset_lists_the_known_ones():
    text = (ROOT / "harness" / "autoresearch.toml").read_text()
    with pytest.raises(TaskError, match="tiny, cpu, cpu-8, gpu"):
        parse_task(text.replace('preset = "cpu"', 'preset = "huge"'))


def test_a_preset_may_be_like_another_and_differ_from_it():
    chain = '[presets.a.run]\nbudget_seconds = 3\ngrace_seconds = 2\n[presets.b]\nlike = "a"\n[presets.b.run]\nbudget_seconds = 4\n'
    run = parse_task(f'preset = "b"\n{TOY}\n{chain}').run
    assert (run.budget_seconds, run.grace_seconds) == (4, 2)
    for like, said in (("c", "there is no such preset"), ("b", "which is like it"), ('["a"]', "like")):
        with pytest.raises(TaskError, match=said):
            parse_task(f'preset = "b"\n{TOY}\n[presets.b]\nlike = {like if like.startswith("[") else repr(like)}\n')


def test_the_hash_ignores_comments_and_sees_values():
    assert parse_task(TOY).sha256 == parse_task("# a comment\n" + TOY).sha256
    assert parse_task(TOY).sha256 != parse_task(TOY.replace("budget_seconds = 20", "budget_seconds = 21")).sha256


def test_expand_fills_what_it_knows_and_leaves_other_braces():
    assert expand(["{python}", "-c", "{x}", "{data}/a"], data="/d")[1:] == ["-c", "{x}", "/d/a"]


def test_bundled_tasks_are_found_and_valid():
    tasks = bundled_tasks()
    assert {"default", "notes"} <= set(tasks)
    for folder in tasks.values():
        assert parse_task((Path(folder) / "autoresearch.toml").read_text()).goal


def test_a_workspace_of_before_declarations_says_so():
    text = (ROOT / "harness" / "autoresearch.toml").read_text()
    assert parse_task(text).outdated is None
    before = parse_task(text.replace('declares = "declaration.safetensors"\n', ""))
    assert "autoresearch-mcp init" in (before.outdated or "") and "declare(model)" in (before.outdated or "")
