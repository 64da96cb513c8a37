# What can be done here; the work is done by the scripts named. PYTEST_ADDOPTS="-k spf" passes options to pytest.
.PHONY: run test coverage lint docs bench

# where Debian keeps clamd, OpenDKIM and Postfix's commands, and where those who are not root do not look
export PATH := $(PATH):/usr/sbin:/sbin

run: # a private Postfix with Elemta on loopback, and mail through it; ONCE=1 ends after the table
	@tests/demo/run.sh $(if $(ONCE),--once)

test: # everything but the benches; what needs Postfix, root or Docker is skipped, with the reason, where it is missing
	@tests/prepare.sh test clamd:clamav-daemon rspamd redis-server opendkim sqlite3 file bsdtar:libarchive-tools
	@.venv/bin/python -m pytest

coverage: # the same, and how many lines were run, of which modules not all; it is twice as slow, too slow for a few tests
	@tests/prepare.sh test clamd:clamav-daemon rspamd redis-server opendkim sqlite3 file bsdtar:libarchive-tools
	@rm -rf /tmp/elemta-coverage && mkdir -m 1777 /tmp/elemta-coverage
	-@.venv/bin/coverage run -m pytest
	@.venv/bin/coverage combine -q
	@.venv/bin/coverage report --skip-covered --sort=cover --fail-under=90

lint:
	@tests/prepare.sh lint
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports

docs: # what the code writes: the configuration reference, its schema, the road map
	@tests/prepare.sh test
	.venv/bin/elemta config reference --output docs/configuration.md
	.venv/bin/elemta config schema --output elemta/config/schema.json
	.venv/bin/python tests/house/roadmap.py

bench: # figures of speed, against the same Postfix without Elemta, postgrey and others
	@tests/bench/run.sh
