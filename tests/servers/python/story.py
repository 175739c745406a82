"""What `hvac` sees of a key/value engine: one JSON line per step.

    story.py MOUNT NAME OTHER MISSING      VAULT_ADDR and VAULT_TOKEN say where
"""

import json
import os
import sys

import hvac
from hvac import exceptions

mount, name, other, missing = sys.argv[1:]
client = hvac.Client(url=os.environ["VAULT_ADDR"], token=os.environ["VAULT_TOKEN"])
kv = client.secrets.kv.v2


def step(title, run):
    try:
        seen = run()
    except exceptions.VaultError as error:
        seen = type(error).__name__
    print(json.dumps({"step": title, "seen": seen}), flush=True)


def read(path, **options):
    answer = kv.read_secret_version(path=path, mount_point=mount, raise_on_deleted_version=True, **options)
    return [answer["data"]["data"], answer["data"]["metadata"]["version"]]


def write(path, value, **options):
    return kv.create_or_update_secret(path=path, secret={"value": value}, mount_point=mount, **options)["data"]["version"]


step("authenticated", client.is_authenticated)
step("initialized", client.sys.is_initialized)
step("sealed", client.sys.is_sealed)
step("health", lambda: client.sys.read_health_status(method="GET")["sealed"])
step("lookup", lambda: "ttl" in client.auth.token.lookup_self()["data"])
step("renew", lambda: bool(client.auth.token.renew_self()["auth"]["client_token"]))
step("read missing", lambda: read(missing))
step("metadata of missing", lambda: kv.read_secret_metadata(path=missing, mount_point=mount))
step("list nothing", lambda: kv.list_secrets(path="", mount_point=mount))
step("write", lambda: write(name, "hunter2 ü\n"))
step("read", lambda: read(name))
step("read version 1", lambda: read(name, version=1))
step("read version 9", lambda: read(name, version=9))
step("cas 0 of what is there", lambda: write(name, "hunter2 ü\n", cas=0))
step("cas 0 of what is not", lambda: write(other, "x", cas=0))
step("write the equal value", lambda: write(other, "x"))
step("write another value", lambda: write(other, "y"))
step("patch", lambda: kv.patch(path=other, secret={"more": "y"}, mount_point=mount)["data"]["version"])
step("list", lambda: sorted(kv.list_secrets(path="", mount_point=mount)["data"]["keys"]))
step("metadata", lambda: kv.read_secret_metadata(path=name, mount_point=mount)["data"]["current_version"])
step("configuration", lambda: kv.read_configuration(mount_point=mount)["data"]["cas_required"])
step("delete version", lambda: kv.delete_secret_versions(path=name, versions=[1], mount_point=mount).status_code)
step("read deleted", lambda: read(name))
step("delete all", lambda: kv.delete_metadata_and_all_versions(path=name, mount_point=mount).status_code)
step("delete what is not there", lambda: kv.delete_metadata_and_all_versions(path=missing, mount_point=mount).status_code)
step("delete latest", lambda: kv.delete_latest_version_of_secret(path=other, mount_point=mount).status_code)
step("delete all of the other", lambda: kv.delete_metadata_and_all_versions(path=other, mount_point=mount).status_code)
step("list nothing again", lambda: kv.list_secrets(path="", mount_point=mount))
client.token = "hvs.nobody"
step("as nobody", lambda: read(name))
step("nobody is authenticated", client.is_authenticated)
