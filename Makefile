# Each target does its own set-up; see scripts/setup.
.PHONY: demo test lint bench soak lock pictures clean

demo:
	@scripts/setup run
	@.venv/bin/twinroot demo

test:
	@scripts/setup test
	@.venv/bin/pytest -n 2 $(ARGS)

lint:
	@scripts/setup run
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-logo

bench:
	@scripts/setup test
	@.venv/bin/python -m bench $(ONLY)

# The long runs: many seeds of the crash tests, then an hour of seeds of the simulation that nobody has run before.
soak:
	@scripts/setup test
	@TWINROOT_SOAK=1 .venv/bin/pytest tests/agent tests/conductor $(ARGS)
	@TWINROOT_SEEDS_S=$${TWINROOT_SEEDS_S:-3600} TWINROOT_SEEDS_FROM=$$(date +%s) .venv/bin/pytest -n 2 tests/simulation $(ARGS)

# docs/pictures/*.png, taken from a demo fleet that the script starts.
pictures:
	@scripts/setup test
	@.venv/bin/python scripts/pictures

lock:
	@scripts/lock

clean:
	rm -rf .venv node_modules static/vendor demo-data .mypy_cache .ruff_cache .pytest_cache .hypothesis
