"""The command line: whatever is wrong is named in one line, and help needs no manual."""

import sys

import pytest
from nbformat.v4 import new_notebook

from slowmanifold.press import build as building
from slowmanifold.press import cli, gate
from slowmanifold.press.execute import Failure, Run

COMMANDS = ("build", "run", "status", "check", "reference", "record", "serve")


@pytest.fixture
def small(book):
    """A book with two chapters, as the current folder."""
    book.chapter("rings", size="size = 3  # how many\nscale = 1.0  # how much\nname = 'a'\nfine = True\ngrid = [1, 2]")
    book.chapter("lines")
    return book


@pytest.fixture
def press(small, monkeypatch, capsys):
    """Runs the command line in this process and returns its exit status, output and errors."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["slowmanifold", *arguments])
        monkeypatch.chdir(small.root)
        status = 0
        try:
            cli.main()
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("line", "culprit"),
    [
        ("bild", "no command 'bild'; there are build, check, record, reference, run, serve, status"),
        ("--profile paper build", "No such option '--profile'"),
        ("build ring", "no chapter 'ring'; there are rings, lines"),
        ("build rings line", "no chapter 'line'; there are rings, lines"),
        ("build book/rings.md", "no chapter 'book/rings.md'; there are rings, lines"),
        ("build --profile draft", "no profile 'draft'; there are quick, paper"),
        ("build --profile", "Option '--profile' requires an argument"),
        ("build --jobs 0", "Invalid value for '--jobs': 0 is not in the range x>=1"),
        ("build --jobs two", "Invalid value for '--jobs': 'two' is not a valid integer"),
        ("build --timeout 0", "Invalid value for '--timeout': 0 is not in the range x>=1"),
        ("build --timeout 1m", "Invalid value for '--timeout': '1m' is not a valid integer"),
        ("build --quick", "No such option '--quick'"),
        ("run", "Missing argument 'CHAPTER'"),
        ("run ring", "no chapter 'ring'; there are rings, lines"),
        ("run rings lines", "Got unexpected extra argument (lines)"),
        ("run rings -p siez=4", "chapter rings has no parameter 'siez'; there are size, scale, name, fine, grid"),
        ("run rings -p size", "parameter 'size': write it as NAME=VALUE; there are size, scale, name, fine, grid"),
        ("run rings -p", "Option '-p' requires an argument"),
        ("run rings -p =4", "chapter rings has no parameter ''; there are size"),
        ("run rings -p size=4.5", "parameter size of chapter rings: 4.5 is float; int is wanted"),
        ("run rings -p size=many", "parameter size of chapter rings: 'many' is str; int is wanted"),
        ("run rings -p size=", "parameter size of chapter rings: '' is str; int is wanted"),
        ("run rings -p size=true", "parameter size of chapter rings: True is bool; int is wanted"),
        ("run rings -p scale=big", "parameter scale of chapter rings: 'big' is str; float is wanted"),
        ("run rings -p scale=1,5", "parameter scale of chapter rings: (1, 5) is tuple; float is wanted"),
        ("run rings -p fine=1", "parameter fine of chapter rings: 1 is int; bool is wanted"),
        ("run rings -p grid=3", "parameter grid of chapter rings: 3 is int; list is wanted"),
        ("run rings -p size=4 -p shape=1", "chapter rings has no parameter 'shape'"),
        ("run rings -p lines.size=4", "chapter rings has no parameter 'lines.size'"),
        ("run rings --profile draft", "no profile 'draft'; there are quick, paper"),
        ("run rings -o book", "book exists already; name a new folder with -o"),
        ("run rings -o _toc.yml", "_toc.yml exists already"),
        ("status rings", "Got unexpected extra argument (rings)"),
        ("status --profile draft", "no profile 'draft'; there are quick, paper"),
        ("check --profile paper", "No such option '--profile'"),
        ("reference ring", "no chapter 'ring'; there are rings, lines"),
        ("record ring", "no chapter 'ring'; there are rings, lines"),
        (
            "record lines",
            "no fresh run at paper scale (lines: never executed); run: slowmanifold build --profile paper",
        ),
        ("record --profile quick", "No such option '--profile'"),
        ("serve", "there is no book yet; run: slowmanifold build"),
        ("serve --port 0", "Invalid value for '--port': 0 is not in the range"),
        ("serve --port eighty", "Invalid value for '--port': 'eighty' is not a valid integer"),
    ],
)
def test_a_bad_command_line_is_refused_in_one_line_that_names_the_culprit(small, press, monkeypatch, line, culprit):
    monkeypatch.setattr("papermill.execute_notebook", None)
    status, out, err = press(*line.split())
    assert (status, out) == (2, "")
    assert err.startswith(f"slowmanifold: {culprit}")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert {path.name for path in small.root.glob("_build/*")} <= {"parsed"}, "nothing was begun"


@pytest.mark.parametrize(
    ("file", "text", "culprit"),
    [
        ("book/claims.yml", "- id: a\n", "claims.yml: a: source is missing"),
        ("book/profiles.yml", "rings: [", "profiles.yml: is not YAML"),
        ("_toc.yml", "- [", "_toc.yml: is not YAML"),
        ("book/profiles.yml", "lines: {quick: {size: 3}}", "profiles.yml has no 'quick' for chapter rings"),
    ],
)
@pytest.mark.parametrize("command", ["build", "status", "reference", "run rings"])
def test_sources_that_cannot_be_used_are_refused_in_one_line(small, press, file, text, culprit, command):
    (small.root / file).write_text(text)
    status, out, err = press(*command.split())
    assert (status, out) == (2, "")
    assert err.startswith(f"slowmanifold: {culprit}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_outside_a_book_every_command_says_so(book, press, tmp_path, monkeypatch, command):
    outside = tmp_path / "outside"
    outside.mkdir()
    monkeypatch.setattr(book, "root", outside)
    status, out, err = press(command, *(["rings"] if command == "run" else []))
    assert (status, out) == (2, "")
    assert err == f"slowmanifold: no book here: neither {outside} nor a folder above it has a _toc.yml and a book/\n"


def test_every_command_works_from_a_folder_inside(small, press, monkeypatch):
    monkeypatch.setattr(type(small), "root", small.folder / "_static", raising=False)
    assert press("status") == (0, "rings  stale: never executed\nlines  stale: never executed\n", "")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("ask", ["--help", "-h"])
def test_help_names_every_argument_and_option_with_what_it_is_for(press, command, ask):
    status, out, err = press(command, ask)
    assert (status, err) == (0, "")
    for parameter in cli.cli.commands[command].params:
        for name in (*parameter.opts, *parameter.secondary_opts):
            assert (name if name.startswith("-") else "CHAPTER") in out
        if parameter.param_type_name == "option":
            assert parameter.help


def test_help_lists_the_commands_with_a_line_each(press):
    status, out, _ = press("--help")
    assert status == 0
    assert set(cli.cli.commands) == set(COMMANDS)
    listed = out.split("Commands:\n")[1].splitlines()
    assert [line.split()[0] for line in listed] == sorted(COMMANDS)
    assert all(len(line.split()) > 3 for line in listed)


def test_without_a_command_there_is_help(press):
    status, out, err = press()
    assert status == 2
    assert "Commands:" in out + err


def test_the_version_is_that_of_the_package(press):
    from importlib.metadata import version

    status, out, _ = press("--version")
    assert status == 0
    assert version("slowmanifold") in out


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("size=4", 4),
        ("size=-4", -4),
        ("scale=1e-3", 0.001),
        ("scale=2", 2.0),
        ("scale=-.5", -0.5),
        ("name=b", "b"),
        ("name=7", "7"),
        ("name=", ""),
        ("name=a=b", "a=b"),
        ("fine=false", False),
        ("fine=False", False),
        ("grid=[3, 4]", [3, 4]),
    ],
)
def test_a_parameter_is_read_as_its_default_is_meant(small, press, monkeypatch, tmp_path, setting, value):
    asked = {}

    def run_aside(book, chapter, values, *rest, **more):
        asked.update(values)
        return Run(new_notebook(), 1.0), tmp_path

    monkeypatch.setattr(building, "run_aside", run_aside)
    assert press("run", "rings", "-p", setting)[0] == 0
    name = setting.partition("=")[0]
    assert asked == {**small.parameters["rings"]["quick"], name: value}
    assert type(asked[name]) is type(value)


def test_status_says_what_is_fresh_and_what_is_stale_and_why(small, press, instant):
    assert press("status")[1] == "rings  stale: never executed\nlines  stale: never executed\n"
    small.build("rings")
    small.edit("book/lines.md", "size = 3", "size = 3 ")
    small.build("lines")
    small.edit("book/lines.md", "runs.write", "runs. write")
    status, out, _ = press("status")
    rings, lines = out.splitlines()[-2:]
    assert status == 0
    assert rings.startswith("rings  fresh  (last run 2")
    assert rings.endswith(", 0.0 s)")
    assert lines.startswith("lines  stale: code cells  (last run 2")
    assert press("status", "--profile", "paper")[1] == "rings  stale: never executed\nlines  stale: never executed\n"


def test_build_says_what_it_did_and_where_the_book_is(small, press, instant):
    page = small.root / "_build" / "html" / "index.html"
    status, out, err = press("build")
    assert (status, err) == (0, "")
    assert out.splitlines()[-1].startswith("2 of 2 chapters executed, book made in ")
    assert out.endswith(f" s: {page}\n")
    assert press("build", "rings")[1].startswith("nothing to execute, book up to date in ")


@pytest.mark.parametrize("place", ["_build", "_build/executed", "_build/sites", "_build/.lock"])
def test_an_output_folder_that_cannot_be_written_is_named_in_one_line(small, press, instant, place):
    path = small.root / place
    path.parent.mkdir(exist_ok=True)
    path.mkdir() if path.name == ".lock" else path.write_text("a file where a folder is to be")
    status, _, err = press("build")
    assert status == 1
    assert err.startswith("slowmanifold: [Errno ")
    assert place in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("output", ["_toc.yml", "/dev/null"])
def test_a_folder_for_ones_own_run_that_cannot_be_made_is_named_before_the_run(small, press, output):
    status, out, err = press("run", "rings", "-o", f"{output}/mine")
    assert (status, out) == (1, "")
    assert err.startswith("slowmanifold: [Errno ")
    assert repr(output) in err
    assert err.count("\n") == 1
    assert not small.runs


def test_a_run_of_ones_own_says_where_it_is(small, press, instant, tmp_path):
    status, out, err = press("run", "rings", "-p", "size=9", "-o", str(tmp_path / "mine"))
    assert (status, err) == (0, "")
    assert out.splitlines()[-1].endswith(f" s: {tmp_path}/mine/rings.ipynb and {tmp_path}/mine/html/index.html")
    assert "size = 9" in (tmp_path / "mine" / "rings.ipynb").read_text()


def test_a_failed_run_of_ones_own_is_shown_and_kept(small, press, monkeypatch, tmp_path):
    def fails(*arguments, **options):
        raise RuntimeError("no kernel today")

    monkeypatch.setattr("papermill.execute_notebook", fails)
    status, _, err = press("run", "rings", "-o", str(tmp_path / "mine"))
    assert status == 1
    assert "rings failed in cell 1:\n    size = 3" in err
    assert "RuntimeError: no kernel today" in err
    assert f"the failed notebook is kept in {tmp_path}/mine" in err
    assert (tmp_path / "mine" / "rings.ipynb").is_file()


def test_what_the_gate_finds_ends_the_check(small, press):
    status, out, err = press("check")
    assert (status, out) == (1, "")
    assert err.splitlines() == [
        "slowmanifold: the references do not cover the book:",
        "  rings: has no reference that can be read; run: slowmanifold reference rings",
        "  lines: has no reference that can be read; run: slowmanifold reference lines",
    ]


def test_reference_writes_the_references_and_shows_how_their_outputs_differ(small, press, instant):
    status, out, _ = press("reference")
    assert status == 0
    assert "+  size = 3" in out
    assert small.project.reference("lines").is_file()
    assert press("reference", "lines")[1] == "lines: the same outputs as before\n"
    small.edit("book/lines.md", "runs.write", "print('new'); runs.write")
    out = press("reference", "lines")[1]
    assert "\n+> new\n" in out
    assert "\n-> " not in out


def test_a_reference_is_not_made_of_a_run_that_failed(small, press, monkeypatch):
    def fails(*arguments, **options):
        raise RuntimeError("no kernel today")

    monkeypatch.setattr("papermill.execute_notebook", fails)
    status, _, err = press("reference", "rings")
    assert status == 1
    assert "chapter rings failed in cell 1" in err
    assert not small.project.reference("rings").exists()


def test_record_keeps_what_runs_at_paper_scale_measured(small, press, instant):
    press("build", "--profile", "paper")
    assert press("record", "lines") == (0, "recorded lines in book/results/paper.json\n", "")
    assert press("record") == (0, "recorded rings, lines in book/results/paper.json\n", "")


def test_a_terminal_gets_a_bar_for_each_chapter_and_a_pipe_plain_lines(monkeypatch):
    class Terminal:
        def isatty(self):
            return True

    assert type(cli.reporter()) is cli.Lines
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert type(cli.reporter()) is cli.Bars


def test_the_bars_count_cells_and_end_as_the_runs_do():
    bars = cli.Bars()
    with bars:
        for name in ("good", "bad"):
            bars.started(name, 3)
            bars.advanced(name)
        bars.finished("good", Run(new_notebook(), 1.0))
        bars.finished("bad", Failure(2, "", "", new_notebook()))
    good, bad = bars.progress.tasks
    assert (good.completed, good.total, bad.completed) == (1, 3, 1)
    assert "failed" in bad.description
    assert "failed" not in good.description
    assert good.finished_time is not None or good.stop_time is not None


def test_the_script_that_is_installed_is_this_command_line(small):
    assert small.press("status", driver=None).stdout.startswith("rings  stale: never executed\n")


def test_ctrl_c_is_told_in_one_line(small, press, monkeypatch):
    def stopped(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(gate, "check", stopped)
    status, out, err = press("check")
    assert (status, out, err.strip()) == (130, "", "slowmanifold: stopped; what is finished is kept")
