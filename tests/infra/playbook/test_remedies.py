"""Failures that Ansible, ssh and sudo word get a way out."""

import pytest

from infra.playbook.remedies import with_remedy


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("Task failed: Missing sudo password", "vars.ansible_become_password"),
        ("Task failed: Incorrect sudo password", "set the right one"),
        ("sudo: a password is required", "vars.ansible_become_password"),
        ("sudo: a terminal is required to read the password", "vars.ansible_become_password"),
        ("deploy is not in the sudoers file.", "give the login sudo"),
        ("sudo: sorry, you must have a tty to run sudo", "!requiretty"),
        ("sudo: interactive authentication is required", "/usr/bin/sudo.ws"),
        ("sudo: I'm sorry deploy. I'm afraid I can't do that", "give the login sudo on this host"),
        ("Timeout (32s) waiting for privilege escalation prompt: ", "/usr/bin/sudo.ws"),
        ("deploy@10.0.0.1: Permission denied (publickey,password).", "ssh.identityFile"),
        ("Host key verification failed.", "hostKeys"),
        ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @", "hostKeys"),
        ("Received disconnect: Too many authentication failures", "ssh.identityFile"),
    ],
)
@pytest.mark.parametrize("outcome", ["failed", "unreachable"])
def test_a_failure_that_others_worded_gets_a_way_out(said: str, remedy: str, outcome: str) -> None:
    """After the words that people look up."""
    told = with_remedy({outcome: True, "message": said})["message"]
    assert told.startswith(f"{said}; ")
    assert remedy in told
    assert with_remedy({outcome: True, "message": told})["message"] == told


def test_nothing_else_is_changed() -> None:
    """Hosts that are well, whatever they say, and failures that name their own remedy."""
    well = {"failed": False, "message": "sudo: a password is required"}
    ours = {"failed": True, "message": "/etc/ai-client: is a link; move it away"}
    assert with_remedy(well) == well
    assert with_remedy(ours) == ours


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (
            "ssh: Could not resolve hostname nohost.invalid: Name or service not known",
            "correct the host's address",
        ),
        ("ssh: connect to host 198.18.0.9 port 22: No route to host", "that the host is up"),
        ("ssh: connect to host 198.18.0.9 port 22: Network is unreachable", "that the host is up"),
        ("ssh: connect to host 198.18.0.9 port 22: Connection refused", "that sshd runs there"),
        ("ssh: connect to host 198.18.0.9 port 22: Connection timed out", "no firewall"),
    ],
)
@pytest.mark.parametrize(
    "wrapper",
    [
        "",
        "Failed to connect to the host via ssh: ",
        'Task failed: Data could not be sent to remote host "a.b". Make sure this host can be reached over ssh: ',
        "Task failed: Failed to connect to the host via ssh: ",
    ],
)
def test_of_a_host_that_is_unreachable_ssh_s_own_words_come_first(
    wrapper: str, words: str, remedy: str
) -> None:
    """Those that people know; then what to do. A wrapper around nothing stays."""
    told = with_remedy({"unreachable": True, "message": wrapper + words})["message"]
    assert told.startswith(f"{words}; ")
    assert remedy in told
    assert with_remedy({"unreachable": True, "message": wrapper})["message"] == wrapper
