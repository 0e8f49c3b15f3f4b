"""One instance of a policy compiled to WASM: OPA's ABI (1.2 and later), and the calls back into the host.

wasmtime's C interface is called directly: its Python layer asks for the type of a function at every call, and keeps
host functions and their exceptions in variables that all threads share.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import wasmtime
from wasmtime import _ffi as ffi

from enrich.decisions._builtins import UNDEFINED, Asked, BuiltinError, NoAnswerError, PerEvaluation
from enrich.decisions._terms import TermError, parse_term, term_text

__all__ = ["NATIVE", "Clock", "Image", "Instance", "WasmError"]

_PAGE: Final = 65536
#: the numbers of calls that OPA did not compile into a module, from here on
NATIVE: Final = 1 << 20
_NEEDED: Final = frozenset(
    [
        "builtins",
        "entrypoints",
        "opa_eval",
        "opa_heap_ptr_get",
        "opa_json_dump",
        "opa_malloc",
        "opa_value_dump",
        "opa_value_parse",
    ]
)
_Callback: Final = ctypes.CFUNCTYPE(
    ctypes.c_size_t,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.POINTER(ffi.wasmtime_val_t),
    ctypes.c_size_t,
    ctypes.POINTER(ffi.wasmtime_val_t),
    ctypes.c_size_t,
)


class WasmError(Exception):
    """The evaluation broke; the instance is of no more use.

    `code` is OPA's name for it.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Clock:
    """Counts an engine's epochs while anybody is inside: what WASM has for a clock.

    Args:
        engine: whose epochs.
        tick_seconds: how long one takes.
    """

    def __init__(self, engine: wasmtime.Engine, tick_seconds: float = 0.02) -> None:
        self.tick_seconds = tick_seconds
        self._engine = engine
        self._lock = threading.Lock()
        self._inside = 0
        self._runs = False
        self._stopped = threading.Event()
        #: since when it runs, and the epochs that it has told since
        self._began, self._told = 0.0, 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            start, self._runs = not self._runs, True
            if start:
                self._began, self._told = time.monotonic(), 0
        if start:
            threading.Thread(target=self._tick, name="enrich-wasm-clock", daemon=True).start()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1

    def ticks(self, seconds: float) -> int:
        """How many epochs come within that time, one at least, with those that are late; for somebody inside."""
        with self._lock:
            return max(1, int((time.monotonic() + seconds - self._began) / self.tick_seconds) - self._told)

    def _tick(self) -> None:
        """Until nobody has been inside for a second.

        INVARIANT: epochs are told by the time that went by, not one per turn: a busy machine lets this thread wait
        longer than it asks for, each time.
        """
        idle = 0
        while True:
            self._stopped.wait(self.tick_seconds)
            with self._lock:
                due = int((time.monotonic() - self._began) / self.tick_seconds)
                for _ in range(due - self._told):
                    self._engine.increment_epoch()
                self._told = max(due, self._told)
                idle = 0 if self._inside else idle + 1
                if idle * self.tick_seconds > 1.0:
                    self._runs = False
                    return


@dataclass(frozen=True, slots=True)
class Image:
    """What instances are made from.

    Attributes:
        engine, module: of wasmtime.
        data: the base documents, JSON.
        builtins: functions for what the module calls outside itself, by name; each takes and gives values as
            `parse_term` does, and may give `UNDEFINED`.
        memory_bytes: the most memory that one instance may take.
        replaced: the names of built-ins that the module would have in itself, by the number under which it calls them.
        explain: what a built-in of the module's own that had no answer under strict rules means: its number and
            arguments to a code and a message, or to None when that is no error.
        strict: whether an error of a built-in ends the evaluation.
    """

    engine: wasmtime.Engine
    module: wasmtime.Module
    data: bytes
    builtins: Mapping[str, Callable[..., Any] | PerEvaluation]
    memory_bytes: int
    replaced: Mapping[int, str]
    explain: Callable[[int, list[Any]], tuple[str, str] | None]
    strict: bool


class Instance:
    """A module with its memory, and the base documents in it. Not thread-safe: whoever has it has it alone.

    Raises:
        WasmError: it can not be made, say because the base documents take more memory than it may have.
    """

    def __init__(self, image: Image) -> None:
        self._image = image
        self._failure: tuple[str, str] | None = None
        self._asked: Asked | None = None
        self._store = wasmtime.Store(image.engine)
        self._store.set_limits(memory_size=image.memory_bytes)
        self._context = self._store._context()
        self._store.set_epoch_deadline(1 << 40)
        self._callbacks: list[Any] = []
        self._memories: list[wasmtime.Memory] = []
        try:
            instance = wasmtime.Instance(self._store, image.module, [self._import(i) for i in image.module.imports])
        except (wasmtime.WasmtimeError, wasmtime.Trap) as error:
            raise WasmError("eval_error", f"the module does not start: {str(error).splitlines()[0][:200]}") from error
        exports = instance.exports(self._store)
        self._functions = {n: e._func for n, e in exports.items() if isinstance(e, wasmtime.Func)}
        versions = [
            g.value(self._store)
            for g in (exports.get("opa_wasm_abi_version"), exports.get("opa_wasm_abi_minor_version"))
            if isinstance(g, wasmtime.Global)
        ]
        if (
            len(versions) != 2
            or versions[0] != 1
            or versions[1] < 2
            or not self._functions.keys() >= _NEEDED
            or not self._memories
        ):
            raise WasmError("eval_error", "the module does not speak version 1.2 of OPA's ABI")
        self._memory = self._memories[0]
        self._arguments = (ffi.wasmtime_val_t * 8)()
        self._result = (ffi.wasmtime_val_t * 1)()
        self.entrypoints: dict[str, int] = self._told("entrypoints")
        names: dict[str, int] = self._told("builtins")
        self.builtins = frozenset(names)
        self._named = {number: (name, image.builtins.get(name)) for name, number in names.items()}
        self._named |= {number: (name, image.builtins.get(name)) for number, name in image.replaced.items()}
        self._data = self._put(image.data) if image.data else 0
        self._heap = self._call("opa_heap_ptr_get")

    def evaluate(self, entry: int, given: bytes | None, ticks: int) -> bytes:
        """Ask for an entry point.

        Args:
            entry: its number.
            given: the input's JSON, well-formed (what is not would be no input); None for no input.
            ticks: how many epochs it may take.

        Returns:
            `[{"result": VALUE}]`, or `[]` when it is undefined, in Rego's form (`parse_term`).

        Raises:
            WasmError: it broke; `eval_cancel_error` when it took too long.
        """
        self._failure = None
        self._asked = None
        heap, length = self._heap, 0
        if given is not None:
            length = len(given)
            heap += length
            self._reserve(heap)
            ctypes.memmove(self._base() + self._heap, given, length)
        ffi.wasmtime_context_set_epoch_deadline(self._context, ticks)
        at = self._call("opa_eval", 0, entry, self._data, self._heap if length else 0, length, heap, 1)
        if self._failure is not None:
            raise WasmError(*self._failure)
        return self._text(at)

    def close(self) -> None:
        """Give the memory back."""
        self._store.close()
        self._callbacks.clear()

    def _import(self, wanted: wasmtime.ImportType) -> wasmtime.Func | wasmtime.Memory:
        kind = wanted.type
        if isinstance(kind, wasmtime.MemoryType):
            memory = wasmtime.Memory(self._store, wasmtime.MemoryType(wasmtime.Limits(kind.limits.min, None)))
            self._memories.append(memory)
            return memory
        if not isinstance(kind, wasmtime.FuncType):
            raise WasmError("eval_error", "the module wants what OPA's modules never want")
        call = self._called if (wanted.name or "").startswith("opa_builtin") else self._told_by_module(wanted.name)

        def callback(_env: Any, _caller: Any, values: Any, count: int, results: Any, given_back: int) -> int:
            try:
                answer = call([values[i].of.i32 for i in range(count)])
                if given_back:
                    results[0].kind = ffi.WASMTIME_I32.value
                    results[0].of.i32 = answer
            except WasmError as error:
                self._failure = self._failure or (error.code, str(error))
            except BaseException as error:  # noqa: BLE001 - an exception can not cross WASM: it would be lost there
                self._failure = self._failure or ("eval_error", f"a built-in broke: {type(error).__name__}")
            if self._failure is None:
                return 0
            trap = wasmtime.Trap("stopped by the host")._consume()
            return ctypes.cast(trap, ctypes.c_void_p).value or 0

        held = ctypes.cast(_Callback(callback), ffi.wasmtime_func_callback_t)
        self._callbacks.append(held)
        function = ffi.wasmtime_func_t()
        ffi.wasmtime_func_new(self._context, kind.ptr(), held, None, _NO_FINALIZER, ctypes.byref(function))
        return wasmtime.Func._from_raw(function)

    def _told_by_module(self, name: str | None) -> Callable[[list[int]], int]:
        """`opa_abort`, which ends the evaluation, and `opa_println`, which nobody gets to see."""

        def told(values: list[int]) -> int:
            if name == "opa_abort":
                text = self._text(values[0] & 0xFFFFFFFF).decode("utf-8", "replace")
                conflict = "conflict" in text
                self._failure = ("eval_conflict_error" if conflict else "eval_error", text)
            return 0

        return told

    def _called(self, values: list[int]) -> int:
        """A call of a built-in: its number, nothing, and the addresses of its arguments."""
        number, addresses = values[0], values[2:]
        try:
            arguments = [self._term(a & 0xFFFFFFFF) for a in addresses]
            if number >= NATIVE and number not in self._named:
                self._failure = self._image.explain(number, arguments)
                return 0
            name, function = self._named[number]
            if function is None:
                self._failure = ("eval_error", f"there is no built-in `{name}`")
                return 0
            if isinstance(function, PerEvaluation):
                # made by the first who needs it: most policies ask for neither time nor chance
                self._asked = self._asked or Asked()
                answer = function.function(self._asked, *arguments)
            else:
                answer = function(*arguments)
            if answer is UNDEFINED:
                return 0
            return self._put(term_text(answer).encode("utf-8"))
        except BuiltinError as error:
            if self._image.strict:
                self._failure = (error.code, f"{self._named[number][0]}: {error}")
        except (NoAnswerError, TermError, UnicodeError) as error:
            # INVARIANT: a value that can't be carried over is no answer at all
            self._failure = ("eval_error", str(error))
        return 0

    def _term(self, address: int) -> Any:
        return parse_term(self._text(self._call("opa_value_dump", address)).decode("utf-8"))

    def _told(self, name: str) -> Any:
        return parse_term(self._text(self._call("opa_json_dump", self._call(name))).decode("utf-8"))

    def _put(self, text: bytes) -> int:
        """A value in the module's memory."""
        address = self._call("opa_malloc", len(text))
        ctypes.memmove(self._base() + address, text, len(text))
        value = self._call("opa_value_parse", address, len(text))
        if not value:
            raise WasmError("eval_error", "the module does not read a value")
        return value

    def _call(self, name: str, *values: int) -> int:
        # nested calls, of a built-in within an evaluation, have arguments of their own
        arguments = self._arguments if name == "opa_eval" else (ffi.wasmtime_val_t * len(values))()
        result = self._result if name == "opa_eval" else (ffi.wasmtime_val_t * 1)()
        for slot, value in zip(arguments, values, strict=False):
            slot.kind = 0
            slot.of.i32 = value
        trap = ctypes.POINTER(ffi.wasm_trap_t)()
        error = ffi.wasmtime_func_call(
            self._context, ctypes.byref(self._functions[name]), arguments, len(values), result, 1, ctypes.byref(trap)
        )
        if error:
            said = str(wasmtime.WasmtimeError._from_ptr(error)).strip().splitlines()
            raise WasmError(*self._failure or ("eval_error", f"the module broke: {said[-1].strip()[:200]}"))
        if trap:
            raise self._broken(wasmtime.Trap._from_ptr(trap))
        return int(result[0].of.i32) & 0xFFFFFFFF

    def _broken(self, trap: wasmtime.Trap) -> WasmError:
        if self._failure is not None:
            return WasmError(*self._failure)
        if trap.trap_code is wasmtime.TrapCode.INTERRUPT:
            return WasmError("eval_cancel_error", "the evaluation took too long")
        if trap.trap_code is wasmtime.TrapCode.STACK_OVERFLOW:
            return WasmError("eval_error", "the evaluation needs more stack than it may have")
        return WasmError("eval_error", f"the module broke: {trap.message.strip().splitlines()[-1][:200]}")

    def _base(self) -> int:
        pointer = ffi.wasmtime_memory_data(self._context, ctypes.byref(self._memory._memory))
        return ctypes.addressof(pointer.contents)

    def size(self) -> int:
        """How many bytes of memory it has taken."""
        return int(ffi.wasmtime_memory_data_size(self._context, ctypes.byref(self._memory._memory)))

    def _reserve(self, end: int) -> None:
        missing = end - self.size()
        if missing > 0:
            try:
                self._memory.grow(self._store, -(-missing // _PAGE))
            except wasmtime.WasmtimeError as error:
                raise WasmError("eval_error", "the input takes more memory than an evaluation may have") from error

    def _text(self, address: int) -> bytes:
        """The bytes up to the next NUL."""
        base, size = self._base(), self.size()
        if not 0 < address < size:
            raise WasmError("eval_error", "the module gave an address outside its memory")
        # INVARIANT: nothing is read behind the memory's end
        if ctypes.c_ubyte.from_address(base + size - 1).value:
            return ctypes.string_at(base + address, size - address).partition(b"\0")[0]
        return ctypes.string_at(base + address)


_NO_FINALIZER: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p)()
