# `./just <recipe>` needs nothing but Python >= 3.11; with just and uv installed, `just <recipe>` is the same.
set shell := ["bash", "-euo", "pipefail", "-c"]
set positional-arguments

python := ".venv/bin/python"
# For recipes that run where the user stands, so that files he names are his: our packages are found, and none of his.
here := "PYTHONPATH=" + quote(justfile_directory()) + " exec " + quote(justfile_directory() / python) + " -P"
uv := env("UV", "uv")
# It measures time, and so would tracing.
untraced := "--deselect tests/protocol/sdp/test_sdp_grammar.py::test_the_worst_offer_of_64_kib_is_read_within_five_milliseconds_of_cpu"

# List what can be done.
_default:
    @{{ just_executable() }} --justfile {{ justfile() }} --list --unsorted

# Run the whole stack on this machine: relay, transceiver, agent and the page (--help tells the options).
[no-cd]
[no-exit-message]
up *arguments: (_env if arguments =~ '(^| )--agent[ =]voice( |$)' { "voice" } else if env("ANTIPHON_STACK_AGENT", "") == "voice" { "voice" } else { "run" })
    @PYTHONPATH={{ quote(justfile_directory()) }} exec {{ quote(justfile_directory() / python) }} -m stack "$@"

# The default tests: every core, the stack, and the real peers that are installed.
test *arguments: (_env "dev")
    {{ python }} -m pytest -n 2 --dist loadgroup "$@"

# Everything there is: lint, types, generated docs, and every test, the long ones too.
test-all: lint types
    {{ python }} -m pytest -m ""

# Every sequence of up to six messages against both DTLS cores, only the legal ones may connect (minutes).
campaign *arguments: (_env "dev")
    {{ python }} -m pytest -n 2 -m soak tests/protocol/dtls/test_dtls_campaign.py "$@"

# Fetch the Realtime SDK that the tests with real clients use (by npm, into .tools/, checked by its hash).
fetch-sdk: (_env "dev")
    {{ python }} tests/conformance/realtime_sdk.py

# All tests against real peers: Chromium, Firefox, aiortc, the programs of OpenSSL and GnuTLS (a quarter of an hour).
conformance *arguments: (_env "dev")
    {{ python }} -m pytest -m conformance "$@"

# Minutes of load: a million mutated packets beside a call (-k million), attacks that take half a minute.
soak *arguments: (_env "dev")
    {{ python }} -m pytest -m soak "$@"

# Simulate calls in virtual time: 1000 on a network that loses a fifth (--seed S, --mischief; --help tells the rest).
[no-cd]
[no-exit-message]
sim *arguments: (_env "dev")
    @PYTHONPATH={{ quote(justfile_directory() + ":" + justfile_directory() / "tests") }} exec {{ quote(justfile_directory() / python) }} -P -m sim "$@"

# Place real calls on a running stack, or on one of its own: --calls 20 --seconds 10 (--help tells the rest).
[no-cd]
[no-exit-message]
load *arguments: (_env if arguments =~ '(^| )--agent[ =]voice( |$)' { "voice" } else { "run" })
    @{{ here }} -m loadgen "$@"

# Ten minutes of 300 calls on a stack of our own: late frames, memory of every process, flat or not; a page and JSON.
[no-cd]
[no-exit-message]
soak-calls *arguments: (_env "run")
    @{{ here }} -m loadgen.soak_calls "$@"

# Look at this machine as a relay would: ports, socket buffers, public address, NAT (--help tells the options).
[no-cd]
[no-exit-message]
doctor *arguments: (_env "run")
    @{{ here }} -m relay doctor "$@"

# Measure: relay CPU per packet, transceiver CPU per call-second, set-up, data channel, interruptions and first words.
[no-cd]
[no-exit-message]
bench *arguments: (_env "dev")
    @{{ here }} -m bench "$@"

# Branch coverage of protocol/ by the tests that need no real peer; fails below 95 % (minutes).
coverage: (_env "dev")
    {{ python }} -m coverage run -m pytest -q -m "not soak and not thorough and not conformance" {{ untraced }} \
        tests/protocol tests/sim tests/fuzz tests/transceiver tests/loadgen
    {{ python }} -m coverage report

# Fuzz whatever reads bytes from the network, guided by coverage: --seconds 600 (--help tells the rest).
[no-exit-message]
fuzz *arguments: (_env "fuzz")
    @exec .venv-fuzz/bin/python -m fuzz "$@"

# Style, spelling and the layers of the architecture.
lint: (_env "dev")
    {{ python }} -m ruff check .
    {{ python }} -m ruff format --check .
    {{ python }} -m codespell_lib
    .venv/bin/lint-imports

# Static types, strict.
types: (_env "dev")
    {{ python }} -m mypy

# Draw the generated documentation anew (state machines, configuration reference).
docs: (_env "run")
    {{ python }} -m docs.generate

# What a change must pass: lint, types, generated docs current, tests.
check: lint types test

# Resolve pyproject.toml anew into the pinned, hash-checked requirement files.
lock:
    {{ uv }} pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 --custom-compile-command "just lock" pyproject.toml --output-file requirements/run.txt
    {{ uv }} pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 --custom-compile-command "just lock" --extra voice pyproject.toml --output-file requirements/voice.txt
    {{ uv }} pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 --custom-compile-command "just lock" --extra voice --extra dev pyproject.toml --output-file requirements/dev.txt
    {{ uv }} pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 --custom-compile-command "just lock" --extra fuzz pyproject.toml --output-file requirements/fuzz.txt

# Bring .venv to the pinned set (run, voice or dev), only when its file changed; each of these contains the one before. The
# fuzzer's instrumented packages live apart, in .venv-fuzz.
_env set:
    #!/usr/bin/env bash
    set -euo pipefail
    venv=.venv
    [ "{{ set }}" != fuzz ] || venv=.venv-fuzz
    current() { cmp -s "requirements/$1.txt" "$venv/synced-$1.txt"; }
    ready() {
        case "$1" in
            run) current run || current voice || current dev ;;
            voice) current voice || current dev ;;
            *) current "$1" ;;
        esac
    }
    ready "{{ set }}" && exit 0
    mkdir -p .tools
    exec 9> .tools/env.lock
    if command -v flock > /dev/null; then flock 9; fi  # several stacks may start side by side
    ready "{{ set }}" && exit 0
    echo "just: installing the {{ set }} set into $venv (once)" >&2
    [ -x $venv/bin/python ] || {{ uv }} venv --quiet $venv
    {{ uv }} pip sync --quiet --python $venv/bin/python --require-hashes "requirements/{{ set }}.txt"
    rm -f $venv/synced-*.txt
    cp "requirements/{{ set }}.txt" "$venv/synced-{{ set }}.txt"
