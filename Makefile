# Everything that a change must pass; the environment is made where there is none.
.PHONY: check
check:
	sh bootstrap.sh test
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -m mypy
	.venv/bin/python -m pytest
