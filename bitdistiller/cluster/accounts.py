"""The SLURM accounts of the user who runs this."""

from __future__ import annotations

from bitdistiller.cluster.slurm import SlurmUnavailable, ask
from bitdistiller.errors import InputError
from bitdistiller.stages.lock import user_name


def check_account(account: str) -> list[str]:
    """Refuse an account that the user does not have; says why where accounting cannot be asked."""
    if not account:
        return []
    user = user_name()
    command = ["sacctmgr", "--noheader", "--parsable2", "show", "associations", f"user={user}", "format=Account"]
    try:
        known = sorted({line.strip() for line in ask(command).splitlines() if line.strip()})
    except SlurmUnavailable as error:
        return [f"account {account} is not checked: {error}"]
    if known and account.lower() not in (name.lower() for name in known):
        raise InputError(f"--account {account}: {user} has no such account; accepted: {', '.join(known)}")
    return [] if known else [f"account {account} is not checked: SLURM knows no accounts of {user}"]
