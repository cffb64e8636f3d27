"""mariadbd and slurmdbd, with an account for the user who runs the tests."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from slurm.rig import configuration
from slurm.rig.daemons import wait_until

if TYPE_CHECKING:
    from slurm.rig.cluster import Cluster

CREATE = (
    "create database if not exists slurm_acct_db;"
    "create user if not exists slurm@localhost identified by 'slurm';"
    "grant all on slurm_acct_db.* to slurm@localhost;"
)


def start_database(cluster: Cluster) -> None:
    """Make an empty database and start its daemon; root's is given to the user mysql."""
    places = cluster.places
    directory = places.directory / "mysql"
    (directory / "data").mkdir(parents=True)
    settings = directory / "my.cnf"
    settings.write_text(configuration.database_conf(places))
    log = places.directory / "log" / "mariadbd.log"
    log.touch()
    (places.directory / "run").chmod(0o777)
    user = "mysql" if _given_to_mysql(directory, directory / "data", log) else places.user
    install = ["mariadb-install-db", f"--defaults-file={settings}", f"--user={user}", "--skip-test-db"]
    cluster.run([*install, "--auth-root-authentication-method=normal"])
    cluster.spawn("mariadbd", ["mariadbd", f"--defaults-file={settings}", f"--user={user}"])
    client = ["mariadb", f"--socket={places.database}", "-u", "root"]
    wait_until(lambda: cluster.succeeds([*client, "-e", "select 1"]), 30, "mariadbd")
    cluster.run([*client, "-e", CREATE])


def _given_to_mysql(*paths: Path) -> bool:
    try:
        for path in paths:
            shutil.chown(path, "mysql")
    except (LookupError, PermissionError):
        return False
    return True


def start_slurmdbd(cluster: Cluster) -> None:
    """Start slurmdbd and wait until it answers."""
    cluster.spawn("slurmdbd", ["slurmdbd", "-D"])
    wait_until(lambda: cluster.succeeds(["sacctmgr", "-n", "show", "cluster"]), 60, "slurmdbd")


def add_account(cluster: Cluster) -> None:
    """Register the cluster, an account and this user in it."""
    user, account = cluster.places.user, configuration.ACCOUNT
    commands = [
        "add cluster rig",
        f"add account {account} cluster=rig Description=tests Organization=tests",
        f"add user {user} account={account} cluster=rig",
        f"modify user {user} set DefaultAccount={account}",
    ]
    environment, text = cluster.environment, "\n".join(commands)
    subprocess.run(
        ["sacctmgr", "-i", "-n"], input=text, text=True, env=environment, timeout=60, capture_output=True, check=False
    )
