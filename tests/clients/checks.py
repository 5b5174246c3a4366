"""What the scripts beside this one share: how checks are run, and what errors must look like."""

import sys
import time
import traceback


def run(module, only=(), **arguments):
    """Runs every function of `module` whose name begins with `check_`, or those with a word of `only`, and ends the
    program."""
    checks = [(name, check) for name, check in vars(module).items() if name.startswith("check_")
              and (not only or any(word in name for word in only))]
    assert checks, "there is nothing to check"
    failed = []
    for name, check in checks:
        start = time.monotonic()
        try:
            check(**arguments)
        except Exception:
            failed.append(name)
            traceback.print_exc()
            print(f"FAILED {name}", flush=True)
            continue
        print(f"ok {name} ({time.monotonic() - start:.1f} s)", flush=True)
    if failed:
        print(f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}")
    sys.exit(1 if failed else 0)


def equal(one, two):
    assert one == two, f"{one!r} is not {two!r}"


def raises(error, call, *words, status=None):
    """`call` raises `error`, and its message has all `words`."""
    try:
        result = call()
    except error as raised:
        message = str(raised)
        for word in words:
            assert word in message, f"{message!r} does not say {word!r}"
        if status is not None:
            equal(raised.status_code, status)
        return raised
    raise AssertionError(f"no {error.__name__}: {result!r}")
