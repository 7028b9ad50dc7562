"""What a test wants to rule out while something runs."""

import contextlib
from collections.abc import Container, Iterator

import jax.monitoring

_COMPILED = "/jax/core/compile/backend_compile_duration"


@contextlib.contextmanager
def no_compilation(but: Container[str] = ()) -> Iterator[None]:
    """Fails, naming the functions, where JAX compiles anything inside, be it a single operation.

    Functions in `but`, such as `jit(add)`, may be compiled.
    """
    names = []

    def listen(event: str, duration: float, **details: str | int) -> None:
        name = str(details.get("fun_name"))
        if event == _COMPILED and name not in but:
            names.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert not names, f"compiled: {', '.join(names)}"
