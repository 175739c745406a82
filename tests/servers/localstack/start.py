"""Starts LocalStack with one fault of its Secrets Manager mended.

moto's `SecretsStore` walks its own dictionary for every lookup, while other threads insert and delete.
Python then raises "dictionary changed size during iteration", and the caller gets a 500: at some
thousand secrets, with several writers, most requests end so. AWS does nothing of the kind. Here a
name is looked up as a key, and what must walk (an ARN, a listing) walks a copy.
"""

from localstack.runtime.main import main
from moto.secretsmanager import models


class SecretsStore(models.SecretsStore):
    def _find(self, key):
        secret = dict.get(self, key)
        if secret is None and key.startswith("arn:"):
            for candidate in self.values():
                if candidate.arn == key:
                    return candidate
            secret = dict.get(self, models.get_secret_name_from_partial_arn(key))
        return secret

    def __getitem__(self, key):
        secret = self._find(key)
        if secret is None:
            raise KeyError(key)
        return secret

    def __contains__(self, key):
        return self._find(key) is not None

    def get(self, key):
        return self._find(key)

    def pop(self, key):
        secret = self._find(key)
        return None if secret is None else dict.pop(self, secret.name, None)

    def values(self):
        # One step of the interpreter: no other thread runs in it.
        return list(dict.values(self))


models.SecretsStore = SecretsStore

main()
