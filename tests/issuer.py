"""An authorization server's half that matters here: keys, and the tokens that they sign."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

ISSUER = "https://identity.example.org"
AUDIENCE = "dermhybrid"

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class Issuer:
    """Signs tokens with one key."""

    def __init__(self, kid: str = "key-1", algorithm: str = "RS256") -> None:
        self.kid, self.algorithm = kid, algorithm
        self.key: PrivateKey
        if algorithm.startswith("ES"):
            curve = ec.SECP256R1() if algorithm == "ES256" else ec.SECP384R1()
            self.key = ec.generate_private_key(curve)
        else:
            self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def jwk(self) -> dict[str, Any]:
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        public: dict[str, Any] = algorithm.to_jwk(self.key.public_key(), as_dict=True)
        return {**public, "kid": self.kid, "alg": self.algorithm, "use": "sig"}

    def token(self, granted: str, header: dict[str, Any] | None = None, **changes: Any) -> str:
        """A token of five minutes; `changes` replace its claims, None removes one."""
        now = datetime.now(UTC)
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "clinician-1",
            "client_id": "ehr",
            "iat": now,
            "exp": now + timedelta(minutes=5),
            "scope": granted,
            **changes,
        }
        return jwt.encode(
            {name: value for name, value in claims.items() if value is not None},
            self.key,
            self.algorithm,
            headers={"kid": self.kid, **(header or {})},
        )


def write_jwks(path: Path, *issuers: Issuer) -> Path:
    path.write_text(json.dumps({"keys": [issuer.jwk() for issuer in issuers]}))
    return path
