"""Containers through the Docker SDK for Python: run, create, start, logs, attach, exec, wait, stop, commit, diff,
export, put and get archive."""

import io
import tarfile
import unittest

import docker


class Containers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.client = docker.from_env(timeout=60)

    @classmethod
    def tearDownClass(cls):
        cls.client.close()

    def create(self, command, **options):
        container = self.client.containers.create("busybox", command, **options)
        self.addCleanup(container.remove, force=True)
        return container

    def start(self, command, **options):
        container = self.create(command, **options)
        container.start()
        return container

    def test_run(self):
        # The SDK follows the log of a running container; dockerd sometimes gives nothing of one that is gone already.
        command = ["sh", "-c", "echo hello; sleep 1"]
        self.assertEqual(self.client.containers.run("busybox", command, remove=True), b"hello\n")
        with self.assertRaises(docker.errors.ContainerError) as caught:
            self.client.containers.run("busybox", ["sh", "-c", "echo bad >&2; exit 4"], remove=True)
        self.assertEqual(caught.exception.exit_status, 4)
        self.assertEqual(caught.exception.stderr, b"bad\n")
        with self.assertRaises(docker.errors.APIError):
            self.client.containers.run("busybox", ["nosuchcommand"], remove=True)

    def test_life(self):
        container = self.create(["sleep", "60"], name="py-life", labels={"kind": "py"}, environment={"A": "b"})
        self.assertEqual(container.status, "created")
        container.start()
        container.reload()
        self.assertEqual(container.status, "running")
        self.assertIn(container, self.client.containers.list(filters={"label": "kind=py"}))
        self.assertEqual(container.name, "py-life")
        self.assertIn("A=b", container.attrs["Config"]["Env"])
        self.assertIn("sleep 60", " ".join(container.top()["Processes"][0]))
        container.rename("py-renamed")
        container.stop(timeout=0)
        container.reload()
        self.assertEqual((container.status, container.attrs["State"]["ExitCode"]), ("exited", 137))
        container.restart(timeout=0)
        container.kill()
        self.assertEqual(container.wait()["StatusCode"], 137)

    def test_wait_and_logs(self):
        container = self.start(["sh", "-c", "echo one; echo two >&2; exit 3"])
        self.assertEqual(container.wait()["StatusCode"], 3)
        self.assertEqual(container.logs(stderr=False), b"one\n")
        self.assertEqual(container.logs(stdout=False), b"two\n")
        self.assertEqual(container.logs(tail=0), b"")
        self.assertTrue(container.logs(stderr=False, timestamps=True).endswith(b" one\n"))

    def test_follow(self):
        container = self.start(["sh", "-c", "echo a; sleep 1; echo b"])
        self.assertEqual(b"".join(container.logs(stream=True, follow=True)), b"a\nb\n")

    def test_attach(self):
        container = self.create(["sh", "-c", "sleep 1; echo seen; echo err >&2"])
        stream = container.attach(stream=True, demux=True)
        container.start()
        parts = list(stream)
        self.assertEqual(b"".join(out or b"" for out, _ in parts), b"seen\n")
        self.assertEqual(b"".join(err or b"" for _, err in parts), b"err\n")

    def test_attach_socket(self):
        container = self.create(["cat"], stdin_open=True, tty=True)
        socket = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
        container.start()
        raw = socket._sock
        raw.sendall(b"typed\n")
        got = b""
        while b"typed\r\ntyped\r\n" not in got:
            part = raw.recv(4096)
            self.assertTrue(part, got)
            got += part
        container.resize(30, 100)
        socket.close()
        raw.close()

    def test_exec(self):
        container = self.start(["sleep", "60"])
        code, output = container.exec_run(["echo", "in"])
        self.assertEqual((code, output), (0, b"in\n"))
        code, output = container.exec_run(["sh", "-c", "echo o; echo e >&2; exit 5"], demux=True)
        self.assertEqual((code, output), (5, (b"o\n", b"e\n")))
        code, output = container.exec_run(["sh", "-c", "pwd; id -un; echo $A"], workdir="/tmp", user="guest", environment=["A=b"])
        self.assertEqual(output, b"/tmp\nguest\nb\n")
        _, stream = container.exec_run(["sh", "-c", "echo 1; sleep 1; echo 2"], stream=True)
        self.assertEqual(b"".join(stream), b"1\n2\n")

    def test_commit(self):
        container = self.start(["sh", "-c", "echo committed > /file"])
        container.wait()
        image = container.commit("py-committed", "1", message="why", author="who", conf={"Cmd": ["sh", "-c", "cat /file; sleep 1"]})
        self.assertEqual(self.client.containers.run(image, remove=True), b"committed\n")
        self.assertEqual(image.history()[0]["Comment"], "why")

    def test_diff_and_export(self):
        container = self.start(["sh", "-c", "echo x > /new; rm /bin/vi"])
        container.wait()
        changes = {(row["Path"], row["Kind"]) for row in container.diff()}
        self.assertEqual(changes, {("/bin", 0), ("/bin/vi", 2), ("/new", 1)})
        with tarfile.open(fileobj=io.BytesIO(b"".join(container.export()))) as tree:
            names = tree.getnames()
            self.assertIn("new", names)
            self.assertNotIn("bin/vi", names)
            self.assertEqual(tree.extractfile("new").read(), b"x\n")

    def test_archives(self):
        container = self.create(["cat", "/root/put"])
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as archive:
            info = tarfile.TarInfo("put")
            info.size = 7
            archive.addfile(info, io.BytesIO(b"content"))
        self.assertTrue(container.put_archive("/root", data.getvalue()))
        stream, stat = container.get_archive("/root/put")
        self.assertEqual((stat["name"], stat["size"]), ("put", 7))
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
            self.assertEqual(archive.extractfile("put").read(), b"content")
        container.start()
        container.wait()
        self.assertEqual(container.logs(), b"content")
        with self.assertRaises(docker.errors.NotFound):
            container.get_archive("/nosuch")

    def test_missing(self):
        with self.assertRaises(docker.errors.NotFound):
            self.client.containers.get("nosuch")
        with self.assertRaises(docker.errors.ImageNotFound):
            self.client.containers.create("nosuch:1", "true")

    def test_prune(self):
        self.client.containers.run("busybox", "true", name="py-pruned")
        pruned = self.client.containers.prune(filters={"label": ["none=such"]})
        self.assertFalse(pruned["ContainersDeleted"])
        self.client.containers.get("py-pruned").remove()


if __name__ == "__main__":
    unittest.main()
