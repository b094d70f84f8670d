"""Registries through the Docker SDK for Python: push, pull by tag and digest, all tags, login, errors."""

import io
import os
import unittest

import docker

OPEN = os.environ["REGISTRY"]
PRIVATE = os.environ["PRIVATE_REGISTRY"]
USER = {"username": os.environ["REGISTRY_USER"], "password": os.environ["REGISTRY_PASSWORD"]}


class Registries(unittest.TestCase):
    def setUp(self):
        # A client remembers who has logged in: each test has its own.
        self.client = docker.from_env(timeout=60)
        self.addCleanup(self.client.close)

    def image(self, name, text):
        dockerfile = f"FROM busybox\nRUN echo {text} > /text\n"
        image, _ = self.client.images.build(fileobj=io.BytesIO(dockerfile.encode()), rm=True, tag=name)
        return image

    def push(self, name, tag=None, **options):
        lines = list(self.client.images.push(name, tag=tag, stream=True, decode=True, **options))
        errors = [line["error"] for line in lines if "error" in line]
        return lines, errors

    def pushed_digest(self, name, tag):
        lines, errors = self.push(name, tag)
        self.assertEqual(errors, [])
        aux = [line["aux"] for line in lines if "aux" in line]
        self.assertEqual([entry["Tag"] for entry in aux], [tag])
        self.assertGreater(aux[0]["Size"], 0)
        return aux[0]["Digest"]

    def test_push_and_pull(self):
        name = f"{OPEN}/py/pushed"
        image = self.image(f"{name}:1", "pushed")
        digest = self.pushed_digest(name, "1")
        lines, _ = self.push(name, "1")
        self.assertIn("Layer already exists", [line.get("status") for line in lines])
        self.assertEqual(self.client.images.get(f"{name}:1").attrs["RepoDigests"], [f"{name}@{digest}"])

        self.client.images.remove(f"{name}:1")
        with self.assertRaises(docker.errors.ImageNotFound):
            self.client.images.get(f"{name}@{digest}")
        pulled = self.client.images.pull(name, tag="1")
        self.assertEqual(pulled.id, image.id)
        self.assertEqual(self.client.images.get(f"{name}@{digest}").id, image.id)
        container = self.client.containers.create(f"{name}@{digest}", ["cat", "/text"])
        self.addCleanup(container.remove)
        container.start()
        container.wait()
        self.assertEqual(container.logs(), b"pushed\n")

    def test_lines_of_a_pull(self):
        name = f"{OPEN}/py/lines"
        self.image(f"{name}:v", "lines")
        digest = self.pushed_digest(name, "v")
        self.client.images.remove(f"{name}:v")
        lines = list(self.client.api.pull(name, tag="v", stream=True, decode=True))
        self.assertEqual(lines[0], {"status": "Pulling from py/lines", "id": "v"})
        self.assertEqual(lines[-2], {"status": f"Digest: {digest}"})
        self.assertEqual(lines[-1], {"status": f"Status: Downloaded newer image for {name}:v"})
        done = [line["id"] for line in lines if line["status"] == "Pull complete"]
        self.assertEqual(len(done), 1, "the other layer was here already")
        for line in lines:
            if line["status"] == "Downloading":
                self.assertLessEqual(line["progressDetail"]["current"], line["progressDetail"]["total"])
        again = list(self.client.api.pull(name, tag="v", stream=True, decode=True))
        self.assertEqual(again[-1], {"status": f"Status: Image is up to date for {name}:v"})
        self.assertEqual(len(again), 3)

    def test_by_digest(self):
        name = f"{OPEN}/py/digest"
        image = self.image(f"{name}:1", "digest")
        digest = self.pushed_digest(name, "1")
        self.client.images.remove(f"{name}:1")
        pulled = self.client.images.pull(f"{name}@{digest}")
        self.assertEqual((pulled.id, pulled.tags), (image.id, []))
        self.client.images.remove(f"{name}@{digest}")
        with self.assertRaises(docker.errors.ImageNotFound):
            self.client.images.get(image.id)

    def test_all_tags(self):
        name = f"{OPEN}/py/all"
        for tag in ["a", "b"]:
            self.image(f"{name}:{tag}", tag)
        lines, errors = self.push(name)
        self.assertEqual(errors, [])
        self.assertEqual([line["aux"]["Tag"] for line in lines if "aux" in line], ["a", "b"])
        for tag in ["a", "b"]:
            self.client.images.remove(f"{name}:{tag}")
        pulled = self.client.images.pull(name, all_tags=True)
        self.assertEqual(sorted(tag for image in pulled for tag in image.tags), [f"{name}:a", f"{name}:b"])

    def test_missing(self):
        with self.assertRaises(docker.errors.NotFound) as caught:
            self.client.images.pull(f"{OPEN}/py/nosuch", tag="1")
        self.assertEqual(caught.exception.status_code, 404)
        self.assertIn(f"manifest for {OPEN}/py/nosuch:1 not found", str(caught.exception))
        _, errors = self.push(f"{OPEN}/py/nosuch", "1")
        self.assertEqual(errors, [f"An image does not exist locally with the tag: {OPEN}/py/nosuch"])
        with self.assertRaises(docker.errors.APIError) as caught:
            self.client.api.pull("scratch", tag="latest")
        self.assertIn("'scratch' is a reserved name", str(caught.exception))

    def test_registry_data(self):
        name = f"{OPEN}/py/data"
        self.image(f"{name}:1", "data")
        digest = self.pushed_digest(name, "1")
        data = self.client.images.get_registry_data(f"{name}:1")
        self.assertEqual(data.id, digest)
        self.assertTrue(data.has_platform("linux/amd64"))
        self.assertEqual(data.pull().tags, [f"{name}:1"])

    def test_login(self):
        answer = self.client.login(registry=PRIVATE, reauth=True, **USER)
        self.assertEqual(answer["Status"], "Login Succeeded")
        name = f"{PRIVATE}/py/private"
        image = self.image(f"{name}:1", "private")
        self.pushed_digest(name, "1")
        self.client.images.remove(f"{name}:1")
        self.assertEqual(self.client.images.pull(name, tag="1").id, image.id)

    def test_without_login(self):
        with self.assertRaises(docker.errors.APIError) as caught:
            self.client.login(registry=PRIVATE, reauth=True, username=USER["username"], password="wrong")
        self.assertIn("401 Unauthorized", str(caught.exception))
        name = f"{PRIVATE}/py/refused"
        self.image(f"{name}:1", "refused")
        _, errors = self.push(name, "1")
        self.assertEqual(errors, ["no basic auth credentials"])
        with self.assertRaises(docker.errors.APIError) as caught:
            self.client.images.pull(name, tag="1")
        self.assertIn("no basic auth credentials", str(caught.exception))
        # Credentials that go with one request count for that one.
        _, errors = self.push(name, "1", auth_config=USER)
        self.assertEqual(errors, [])
        with self.assertRaises(docker.errors.APIError):
            self.client.images.pull(name, tag="1", auth_config={"username": "other", "password": "x"})


if __name__ == "__main__":
    unittest.main()
