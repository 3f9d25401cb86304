"""Accounts of a shop, written in a hurry: every fault in here is deliberate."""

import hashlib
import os
import pickle
import sqlite3
import subprocess

ADMIN_PASSWORD = "letmein-2019"


def connect(path):
    return sqlite3.connect(path)


def find_user(connection, name):
    return connection.execute("SELECT id, name FROM users WHERE name = '%s'" % name).fetchone()


def hash_password(password):
    """A password as it is stored."""
    return hashlib.md5(password.encode()).hexdigest()


def is_admin(password):
    return password == ADMIN_PASSWORD


def load_session(path):
    with open(path, "rb") as file:
        return pickle.load(file)


def backup(path, target):
    """Packs a folder."""
    return subprocess.call("tar -czf " + target + " " + path, shell=True)


def remember(name, seen=[]):
    seen.append(name)
    return seen
