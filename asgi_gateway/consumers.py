"""The only place that knows the callers who have credentials."""

import hmac
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field, SecretStr

from .declaration import Declaration
from .errors import ConfigError, Problem

ARGON2 = "$argon2"
"""How a password begins that is the hash of one."""


class Declared(Declaration):
    """What the parts of a consumer have in common."""


class Login(Declared):
    """A name and a password, for `basic_auth`."""

    username: Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x1f\x7f:]*$")]
    """The user name; it has no colon (RFC 7617)."""
    password: Annotated[SecretStr, Field(min_length=1)]
    """The password, or its argon2 hash as `argon2-cffi` and others write it: `$argon2id$...`."""


class SigningKey(Declared):
    """A secret that is shared with the caller, for `signature`."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._~:@/-]{1,128}$")]
    """How requests name the secret."""
    secret: Annotated[SecretStr, Field(min_length=16)]
    """What requests are signed with; 32 random bytes are a good one."""


class Consumer(Declared):
    """A caller that has credentials."""

    name: Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x1f\x7f]*$")]
    """How the caller is called in logs, limits and headers."""
    keys: tuple[Annotated[SecretStr, Field(min_length=1)], ...] = ()
    """API keys; any of them identifies the consumer."""
    basic: tuple[Login, ...] = ()
    """User names and passwords."""
    hmac: tuple[SigningKey, ...] = ()
    """Secrets with which the caller signs requests."""
    certificates: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Client certificates: SHA-256 fingerprints in hex, or subjects as RFC 4514 writes them."""
    subjects: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """What tokens call this consumer: values of the claim that `jwt_auth` and others look at."""
    groups: tuple[str, ...] = ()
    """Groups that it belongs to, for access lists and tiers."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling, as the AUTH stage found out."""

    consumer: str
    method: str
    """The component that found out: key_auth, jwt_auth, ..."""
    groups: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    claims: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, repr=False)
class Password:
    """What the password of a login is compared with: its digest, or its argon2 hash."""

    owner: Consumer
    digest: bytes = b""
    argon2: str = ""

    @classmethod
    def of(cls, owner: Consumer, password: str) -> "Password":
        if cls.is_hash(password):
            return cls(owner, argon2=password)
        return cls(owner, digest=sha256(password.encode()).digest())

    @staticmethod
    def is_hash(password: str) -> bool:
        return password.startswith(ARGON2)

    def equals(self, password: bytes) -> bool:
        """For a plain one; how long it takes tells nothing about it."""
        return hmac.compare_digest(self.digest, sha256(password).digest())


def fingerprint(text: str) -> str:
    """How a fingerprint or subject of a certificate is compared: hex without colons, names as they are."""
    bare = text.replace(":", "").lower()
    return bare if len(bare) == 64 and not set(bare) - set("0123456789abcdef") else text


Kind = Literal["key", "login", "secret"]
"""What a caller shows: an API key, a user name, the id of a secret."""


class Records(Protocol):
    """Consumers that lie elsewhere, one under each of their credentials."""

    async def find(self, kind: Kind, digest: str) -> Consumer | None:
        """Whose credential has this SHA-256, in hex. StoreError: it cannot be said at the moment."""
        ...


class Consumers:
    """The consumers of one configuration. Keys are held as SHA-256, so that a dump shows none."""

    __slots__ = ("_by_digest", "_by_name", "_certificates", "_logins", "_secrets", "_subjects", "records")

    def __init__(self, consumers: Iterable[Consumer] = ()) -> None:
        self._by_name: dict[str, Consumer] = {}
        self._by_digest: dict[bytes, Consumer] = {}
        self._logins: dict[str, Password] = {}
        self._secrets: dict[str, tuple[Consumer, bytes]] = {}
        self._certificates: dict[str, Consumer] = {}
        self._subjects: dict[str, Consumer] = {}
        self.records: Records | None = None
        """Where `ask_key` and its kind look for callers who are not here; None: nowhere."""
        problems: list[Problem] = []
        for consumer in consumers:
            if consumer.name in self._by_name:
                problems.append(Problem(f"two consumers are called {consumer.name!r}", "consumers"))
            self._by_name[consumer.name] = consumer
            problems += self._add(consumer)
        if problems:
            raise ConfigError(problems)

    def _add(self, consumer: Consumer) -> Iterator[Problem]:
        for kind, identity, other in self._claim(consumer):
            if other is not consumer:
                yield Problem(f"{other.name!r} and {consumer.name!r} have the same {kind}", "consumers")
            elif identity:
                yield Problem(f"{consumer.name!r} has the {kind} {identity!r} twice", "consumers")

    def _claim(self, consumer: Consumer) -> Iterator[tuple[str, str, Consumer]]:
        """Note what is this consumer's; its owner, where it has one already."""
        for key in consumer.keys:
            digest = sha256(key.get_secret_value().encode()).digest()
            yield "key", "", self._by_digest.setdefault(digest, consumer)
        for login in consumer.basic:
            password = Password.of(consumer, login.password.get_secret_value())
            known = self._logins.setdefault(login.username, password)
            yield "user name", login.username if known is not password else "", known.owner
        for signing in consumer.hmac:
            entry = (consumer, signing.secret.get_secret_value().encode())
            kept = self._secrets.setdefault(signing.id, entry)
            yield "id of a secret", signing.id if kept is not entry else "", kept[0]
        for certificate in consumer.certificates:
            yield "certificate", "", self._certificates.setdefault(fingerprint(certificate), consumer)
        for subject in consumer.subjects:
            yield "subject", "", self._subjects.setdefault(subject, consumer)

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Consumer]:
        return iter(self._by_name.values())

    def __getitem__(self, name: str) -> Consumer:
        return self._by_name[name]

    def get(self, name: str) -> Consumer | None:
        return self._by_name.get(name)

    def with_key(self, key: bytes) -> Consumer | None:
        """The owner of an API key. Looked up by digest: how long it takes tells nothing about the keys."""
        return self._by_digest.get(sha256(key).digest())

    def password(self, username: str) -> Password | None:
        return self._logins.get(username)

    def argon2(self) -> str:
        """One of the argon2 hashes, if there are any."""
        return next((login.argon2 for login in self._logins.values() if login.argon2), "")

    def secret(self, identity: str) -> tuple[Consumer, bytes] | None:
        """The owner of a secret, and the secret."""
        return self._secrets.get(identity)

    def with_certificate(self, text: str) -> Consumer | None:
        """The owner of a certificate, by fingerprint or subject."""
        return self._certificates.get(fingerprint(text))

    def with_subject(self, subject: str) -> Consumer | None:
        return self._subjects.get(subject)

    # Those who are not here. StoreError: it cannot be said who is calling.

    async def ask_key(self, key: bytes) -> Consumer | None:
        """The owner of an API key."""
        found = await self._ask("key", key)
        return None if found is None else self._named(found)

    async def ask_password(self, username: str) -> Password | None:
        found = await self._ask("login", username.encode())
        if found is not None:
            for login in found.basic:
                if login.username == username:
                    return Password.of(self._named(found), login.password.get_secret_value())
        return None

    async def ask_secret(self, identity: str) -> tuple[Consumer, bytes] | None:
        """The owner of a secret, and the secret."""
        found = await self._ask("secret", identity.encode())
        if found is not None:
            for signing in found.hmac:
                if signing.id == identity:
                    return self._named(found), signing.secret.get_secret_value().encode()
        return None

    async def _ask(self, kind: Kind, credential: bytes) -> Consumer | None:
        assert self.records is not None
        return await self.records.find(kind, sha256(credential).hexdigest())

    def _named(self, found: Consumer) -> Consumer:
        """Whom a record means: one of ours if it has the name of one, who is what we say of it."""
        return self._by_name.get(found.name, found)
