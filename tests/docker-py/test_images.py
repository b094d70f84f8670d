"""Images through the Docker SDK for Python: build, save, load, list, tag, remove, prune, history."""

import io
import os
import tarfile
import unittest

import docker


class Images(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.client = docker.from_env(timeout=60)

    @classmethod
    def tearDownClass(cls):
        cls.client.close()

    def build(self, text, **options):
        return self.client.images.build(fileobj=io.BytesIO(text.encode()), rm=True, **options)

    def test_version_and_info(self):
        version = self.client.version()
        self.assertGreaterEqual(tuple(int(n) for n in version["ApiVersion"].split(".")), (1, 41))
        self.assertEqual(version["Os"], "linux")
        self.assertTrue(self.client.ping())
        self.assertIn("Images", self.client.info())
        self.assertIn("Images", self.client.df())

    def test_build_and_history(self):
        image, log = self.build("FROM busybox\nRUN echo built\nLABEL who=py\n", tag="py-built:1")
        self.assertIn("py-built:1", image.tags)
        self.assertEqual(image.labels, {"who": "py"})
        text = "".join(line.get("stream", "") for line in log)
        self.assertIn("Step 2/3 : RUN echo built", text)
        self.assertIn("Successfully tagged py-built:1", text)
        history = image.history()
        self.assertEqual(history[0]["Id"], image.id)
        self.assertIn("echo built", history[1]["CreatedBy"])

    def test_build_error(self):
        with self.assertRaises(docker.errors.BuildError) as caught:
            self.build("FROM busybox\nRUN exit 9\n")
        self.assertIn("returned a non-zero code: 9", str(caught.exception))
        with self.assertRaises(docker.errors.APIError) as caught:
            self.build("NONSENSE\n")
        self.assertEqual(caught.exception.status_code, 400)

    def test_build_from_folder(self):
        folder = os.path.join(os.environ["WORK"], "context")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "Dockerfile"), "w") as file:
            file.write("FROM busybox\nARG A\nCOPY data /data\nENV B=$A\n")
        with open(os.path.join(folder, "data"), "w") as file:
            file.write("from the folder")
        image, _ = self.client.images.build(path=folder, buildargs={"A": "arg"}, labels={"x": "y"})
        self.assertIn("B=arg", image.attrs["Config"]["Env"])
        self.assertEqual(image.labels, {"x": "y"})
        # Not by run(): dockerd's follower of a log loses what a busy machine writes late.
        container = self.client.containers.create(image, ["cat", "/data"])
        self.addCleanup(container.remove)
        container.start()
        self.assertEqual(container.wait()["StatusCode"], 0)
        self.assertEqual(container.logs(), b"from the folder")

    def test_list_tag_remove(self):
        image = self.client.images.get("busybox")
        self.assertTrue(image.tag("py-tagged", tag="1"))
        self.assertIn("py-tagged:1", [tag for i in self.client.images.list() for tag in i.tags])
        self.assertEqual(self.client.images.list("py-tagged")[0].id, image.id)
        self.assertEqual(self.client.images.list(filters={"reference": "nosuch*"}), [])
        self.client.images.remove("py-tagged:1")
        with self.assertRaises(docker.errors.ImageNotFound):
            self.client.images.get("py-tagged:1")

    def test_save_and_load(self):
        image, _ = self.build("FROM busybox\nRUN echo saved > /saved\n", tag="py-saved:1")
        data = b"".join(image.save(named=True))
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            self.assertIn("manifest.json", archive.getnames())
        self.client.images.remove("py-saved:1", force=True)
        loaded = self.client.images.load(data)
        self.assertEqual([i.id for i in loaded], [image.id])
        self.assertIn("py-saved:1", loaded[0].tags)

    def test_prune(self):
        self.build("FROM busybox\nRUN echo 123456 > /dangling\n")
        pruned = self.client.images.prune()
        self.assertTrue(any("Deleted" in row for row in pruned["ImagesDeleted"]))
        self.assertGreater(pruned["SpaceReclaimed"], 0)
        self.client.images.get("busybox")


if __name__ == "__main__":
    unittest.main()
