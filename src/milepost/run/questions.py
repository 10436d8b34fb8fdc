"""`run.ask`: ask a person, and wait for the answer without a worker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from milepost.core.errors import InputChangedError, InvalidInputError, JobSuspended, QuestionExpiredError
from milepost.core.serialization import (
    KIB,
    from_json,
    from_micros,
    printable,
    seconds,
    to_json,
    to_micros,
    validate_key,
)
from milepost.core.values import Question
from milepost.run.crash_report import masked
from milepost.run.param_types import JSON_TYPES, check_schema, param_type_of, plain
from milepost.run.scalar_types import ParamType, check_bounds
from milepost.run.steps import KEY_BYTES, Steps
from milepost.run.suspension import refuse_elsewhere

if TYPE_CHECKING:
    from milepost.run.run import Run

PROMPT_BYTES = 8 * KIB
SCHEMA_BYTES = 64 * KIB
ANSWER_BYTES = 64 * KIB
JOB_BYTES = 4 * 1024 * KIB
"""The size limit of all questions of a job, with their answers."""
MAX_QUESTIONS = 1000
NO_DEFAULT: Any = object()
_REMEDY = "give the question another key, or start again without answers: milepost retry --from-start, retry_job(job_id, from_start=True)"


class Questions:
    """The questions of a job as its run knows them: as they were at its start, or when `refresh` read them last."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._take(run._job.record)

    @classmethod
    def of(cls, run: Run) -> Questions:
        """Return the questions of a run, which are made at its first one."""
        with run._making:
            if run._questions is None:
                run._questions = cls(run)
            return run._questions

    def _take(self, record: Mapping[str, Any]) -> None:
        self.kept = questions_of(record.get("questions"))
        self._version = record.get("questions_version") or ""
        self.asking: str | None = record.get("asking")

    def refresh(self) -> None:
        """Read the questions anew."""
        self._take(self._run._checkpoint_writer.read_questions(self._run))

    def write(self, question: Question, *, asked: bool, data: Mapping[str, Any]) -> bool:
        """Write a question as asked or as settled. Return False, with all read anew, if they have changed meanwhile."""
        kept = {**self.kept, question.key: question}
        if len(kept) > MAX_QUESTIONS:
            raise InvalidInputError("key", f"{len(kept)} questions, the limit of a job is {MAX_QUESTIONS}")
        values = {
            "version": self._version,
            "questions": questions_text(kept),
            "key": question.key,
            "data": to_json({"key": question.key, **data}, "key"),
        }
        if asked:
            values["expires"] = micros_of(question.expires_at)
        with Steps.of(self._run).lock:
            written = self._run._checkpoint_writer.write_question(self._run, values)
        if not written:
            self.refresh()
            return False
        self.kept, self.asking = kept, question.key if asked else None
        self._version = str(int(self._version or 0) + 1)
        return True


class Ask:
    """One call of `run.ask`."""

    def __init__(self, run: Run, key: str, prompt: str, schema: Any, expires: Any, default: Any) -> None:
        refuse_elsewhere(run, "ask")
        validate_key(key, "key", KEY_BYTES)
        if not isinstance(prompt, str) or not prompt.strip():
            raise InvalidInputError("prompt", f"{prompt!r:.40} must be a text that says what is asked")
        if (size := len(prompt.encode("utf-8", "replace"))) > PROMPT_BYTES:
            raise InvalidInputError("prompt", f"{size} bytes, the limit is {PROMPT_BYTES}; link to a longer text")
        self._run = run
        self.key = key
        self._prompt = masked(printable(prompt, PROMPT_BYTES), run._secret_values)
        self._type = _type_of(schema)
        self._schema = dict(self._type.schema)
        to_json(self._schema, "schema", SCHEMA_BYTES)
        self._expires = None if expires is None else seconds(expires, "expires")
        self._default = NO_DEFAULT
        if default is not NO_DEFAULT:
            if expires is None:
                raise InvalidInputError("default", "is used when the question expires; give expires= too")
            self._default = from_json(to_json(plain(default), "default", ANSWER_BYTES))
            self._type.read(self._default, "default")
        self._questions = Questions.of(run)
        run.check()
        Steps.of(run).begin(key)

    def open(self) -> None:
        """Ask the question if it was not asked before, without waiting for the answer."""
        while (found := self._questions.kept.get(self.key)) is None or found.state == "early":
            self._ask(found)

    def answer(self) -> tuple[Any] | None:
        """Return the answer in a tuple, or None if the run has to wait in place for it.

        Raises JobSuspended instead, if the run can be suspended, and QuestionExpiredError.
        """
        self.open()
        while (found := self._questions.kept[self.key]).state == "open":
            if self._questions.asking != self.key:
                self._questions.write(found, asked=True, data=self._shown(found))
            else:
                expires = micros_of(found.expires_at)
                if expires is None or expires > self._run._checkpoint_writer.now(self._run):
                    self._check_unchanged(found)
                    if self._run._can_suspend:
                        self._run._suspend(JobSuspended(expires, self.key), f"ask({self.key!r:.80})")
                    return None
                self._expire(found)
        self._check_unchanged(found)
        if found.state == "expired":
            raise QuestionExpiredError(f"question {self.key!r:.80} expired at {found.expires_at} without an answer")
        self._run._check_cancel()
        if not self._fits(found):  # its type refuses what its schema allows
            again = replace(found, state="open", answer=None, answered_at=None, answered_by=None)
            self._questions.write(again, asked=True, data=self._shown(again))
            return self.answer()
        return (self._type.read(found.answer, self.key),)

    def refresh(self) -> None:
        """Look for the answer again."""
        self._questions.refresh()

    def _ask(self, early: Question | None) -> None:
        now = self._run._checkpoint_writer.now(self._run)
        expires = None if self._expires is None else from_micros(now + int(self._expires * 1_000_000)).isoformat()
        question = Question(
            self.key, self._prompt, self._schema, asked_at=from_micros(now).isoformat(), expires_at=expires
        )
        if early is not None and self._fits(early):
            given = {"answer": early.answer, "answered_at": early.answered_at, "answered_by": early.answered_by}
            self._questions.write(replace(question, state="answered", **given), asked=False, data={})
        else:
            self._questions.write(question, asked=True, data=self._shown(question))

    def _fits(self, answered: Question) -> bool:
        """Return whether an answer can be read as its type. One that cannot is logged, and the question is asked again."""
        try:
            self._type.read(answered.answer, "value")
        except InvalidInputError as misfit:
            self._run.log(
                f"question {self.key!r:.80}: the answer of {answered.answered_by} does not fit: {misfit}", "warning"
            )
            return False
        return True

    def _expire(self, found: Question) -> None:
        if self._default is NO_DEFAULT:
            settled = replace(found, state="expired")
        else:
            settled = replace(found, state="default", answer=self._default)
        self._questions.write(settled, asked=False, data={})

    def _check_unchanged(self, found: Question) -> None:
        """Raise InputChangedError if the question is another one than the one with this key before."""
        for name, before, now in (("prompt", found.prompt, self._prompt), ("schema", found.json_schema, self._schema)):
            if before != now:
                raise InputChangedError(
                    f"was asked with the {name} {before!r:.200}, now with {now!r:.200}",
                    _REMEDY,
                    f"question {self.key!r:.80}",
                )

    @staticmethod
    def _shown(question: Question) -> dict[str, Any]:
        return {"prompt": question.prompt, "expires_at": question.expires_at}


def asks_of(run: Run, questions: Mapping[str, tuple[str, Any]], expires: Any) -> list[Ask]:
    """Return a call of `run.ask` for each question of `run.ask_all`."""
    asks: list[Ask] = []
    for key, question in questions.items():
        if not isinstance(question, tuple) or len(question) != 2:
            raise InvalidInputError(
                "questions", f"{key!r:.80}: must be a tuple of the prompt and the type of the answer"
            )
        asks.append(Ask(run, key, *question, expires, NO_DEFAULT))
    return asks


def open_all(asks: Iterable[Ask]) -> None:
    """Ask all questions before one is waited for.

    The job then waits for the last one, so that is the first to get the answer of: another would be asked again.
    """
    for ask in asks:
        ask.open()


def questions_of(text: str | None) -> dict[str, Question]:
    """Return the questions of a stored text, by their keys."""
    return {one["key"]: Question(**one) for one in from_json(text)} if text else {}


def questions_text(kept: Mapping[str, Question]) -> str:
    """Return the stored text of questions. Raises InvalidInputError above the size limit."""
    rows = [
        {name: value for name in Question.__slots__ if (value := getattr(one, name)) is not None}
        for one in kept.values()
    ]
    return to_json(rows, "questions", JOB_BYTES)


def micros_of(time: str | None) -> int | None:
    """Return an ISO 8601 text in microseconds since 1970."""
    return None if time is None else to_micros(datetime.fromisoformat(time), "time")


def _type_of(schema: Any) -> ParamType:
    """Return how answers are checked and read: by a type, a JSON schema, or not at all."""
    if schema is None:
        return param_type_of(Any, "schema")
    if isinstance(schema, Mapping):
        validate_schema(schema, "schema")

        def read(value: Any, path: str) -> Any:
            check_schema(value, schema, path)
            return value

        return ParamType(from_json(to_json(schema, "schema", SCHEMA_BYTES)), read)
    found = param_type_of(schema, "schema")
    if found.secret:
        raise InvalidInputError("schema", "an answer cannot be secret; it is shown with the question")
    return found


_NAMED = ("properties", "$defs")
_LISTED = ("anyOf", "oneOf", "allOf", "prefixItems")


def validate_schema(schema: Any, path: str, names: frozenset[str] = frozenset()) -> None:
    """Raise InvalidInputError, naming the path, if a part is no JSON schema with which an answer can be compared.

    `names` are those of `$defs` around it.
    """
    if not isinstance(schema, Mapping):
        raise InvalidInputError(path, f"{schema!r:.60} is not a JSON schema; use a dict such as {{'type': 'string'}}")
    names = names | frozenset(map(str, _parts(schema, "$defs", dict, path)))
    _check_types(schema, path)
    if "$ref" in schema and str(schema["$ref"]).removeprefix("#/$defs/") not in names:
        raise InvalidInputError(f"{path}.$ref", f"{schema['$ref']!r:.60} is not in $defs; use '#/$defs/NAME'")
    for name in _NAMED:
        for key, part in _parts(schema, name, dict, path).items():
            validate_schema(part, f"{path}.{name}.{key!s:.60}", names)
    for name in _LISTED:
        for number, part in enumerate(_parts(schema, name, list, path)):
            validate_schema(part, f"{path}.{name}[{number}]", names)
    _parts(schema, "enum", list, path)
    if schema.get("required") != []:
        _parts(schema, "required", list, path)
    if "items" in schema:
        validate_schema(schema["items"], f"{path}.items", names)
    if not isinstance(others := schema.get("additionalProperties", True), bool):
        validate_schema(others, f"{path}.additionalProperties", names)
    check_bounds(schema, path)


def _check_types(schema: Mapping[str, Any], path: str) -> None:
    types = schema.get("type", [])
    for name in types if isinstance(types, list) else [types]:
        if not isinstance(name, str) or name not in JSON_TYPES:
            raise InvalidInputError(f"{path}.type", f"{name!r:.60} is not one of {', '.join(JSON_TYPES)}")


def _parts(schema: Mapping[str, Any], name: str, kind: type, path: str) -> Any:
    """Return the parts under a keyword, empty without it."""
    if name not in schema:
        return kind()
    if not isinstance(schema[name], kind) or schema[name] == []:
        expected = "a dict" if kind is dict else "a list with at least one item"
        raise InvalidInputError(f"{path}.{name}", f"{schema[name]!r:.60} must be {expected}")
    return schema[name]
