set shell := ["bash", "-euo", "pipefail", "-c"]
set positional-arguments

# List what can be done.
_default:
    @just --list --unsorted
