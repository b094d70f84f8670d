//! Images: list, filters, tags, history, inspect, removal with Docker's rules, prune, save and load.

use kit::{on_both, on_postgres_too};

on_both! {
    fn list_and_filters(engine: &Engine) {
        let images = engine.docker(&["images"]);
        let header: Vec<&str> = images.lines()[0].split_whitespace().collect();
        assert_eq!(header, ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"], "{images}");
        engine.docker(&["tag", "busybox", "other:two"]).ok();
        let id = engine.docker(&["images", "-q", "busybox"]).ok().to_owned();
        assert_eq!(id.len(), 12);
        assert_eq!(engine.docker(&["images", "-q", "other:two"]).ok(), id);
        assert_eq!(engine.docker(&["images", "--format", "{{.Tag}}", "other"]).ok(), "two");
        let full = engine.docker(&["images", "-q", "--no-trunc", "busybox"]).ok().to_owned();
        assert!(full.starts_with("sha256:") && full.len() == 71, "{full}");
        engine.docker(&["images", "--digests"]).says("DIGEST");
        engine.docker(&["images", "-f", "reference=oth*"]).says("other").hides("busybox");
        engine.docker(&["images", "-f", "dangling=true"]).hides("busybox");
        engine.docker_fed(&["build", "-t", "labelled", "-"], b"FROM busybox\nLABEL colour=red\n").ok();
        engine.docker(&["images", "-f", "label=colour=red"]).says("labelled").hides("other");
        engine.docker(&["images", "-f", "label=colour=blue"]).hides("labelled");
        engine.docker(&["images", "-f", "before=labelled"]).says("busybox").hides("labelled");
        engine.docker(&["images", "-f", "since=busybox"]).says("labelled").hides("other");
        engine.docker(&["images", "nosuch"]).hides("busybox");
        let listed = engine.api("GET", "/v1.41/images/json", "").json();
        for key in ["Containers", "Created", "Id", "Labels", "ParentId", "RepoDigests", "RepoTags", "SharedSize", "Size"] {
            assert!(listed[0].get(key).is_some(), "the list lacks {key}: {listed}");
        }
    }

    fn intermediate_images_hide(engine: &Engine) {
        engine.docker_fed(&["build", "-t", "steps", "-"], b"FROM busybox\nENV A=1\nENV B=2\nCMD [\"true\"]\n").ok();
        let shown = engine.docker(&["images", "-q"]).lines().len();
        let all = engine.docker(&["images", "-aq"]).lines().len();
        assert_eq!((shown, all), (2, 4));
        engine.docker(&["rmi", "steps"]).says("Untagged: steps:latest");
        assert_eq!(engine.docker(&["images", "-aq"]).lines().len(), 1, "rmi removes the untagged parents too");
    }

    fn no_prune_keeps_parents(engine: &Engine) {
        engine.docker_fed(&["build", "-t", "steps", "-"], b"FROM busybox\nENV A=1\nCMD [\"true\"]\n").ok();
        engine.docker(&["rmi", "--no-prune", "steps"]).says("Untagged: steps:latest");
        engine.docker(&["images", "-q", "-f", "dangling=true"]).ok();
        assert_eq!(engine.docker(&["images", "-aq"]).lines().len(), 2);
    }

    fn history_and_inspect(engine: &Engine) {
        engine.docker_fed(&["build", "-t", "h", "-"], b"FROM busybox\nRUN echo x > /x\nCMD [\"cat\", \"/x\"]\n").ok();
        let history = engine.docker(&["history", "h"]);
        assert_eq!(history.lines().len(), 4, "{history}");
        history.says("IMAGE").says("CREATED BY").says("/bin/sh -c echo x > /x");
        let ids = engine.docker(&["history", "-q", "--no-trunc", "h"]);
        assert!(ids.lines()[0].starts_with("sha256:"));
        let size = engine.docker(&["history", "--format", "{{.Size}}", "-H=false", "h"]);
        assert_eq!(&size.lines()[..2], ["0", "2"], "{size}");
        let inspected = engine.docker(&["inspect", "h"]);
        let json: serde_json::Value = serde_json::from_str(inspected.ok()).expect("inspect prints JSON");
        assert_eq!(json[0]["Config"]["Cmd"], serde_json::json!(["cat", "/x"]));
        assert_eq!(json[0]["RepoTags"], serde_json::json!(["h:latest"]));
        assert_eq!(json[0]["RootFS"]["Layers"].as_array().map(Vec::len), Some(2));
        for key in ["Id", "Parent", "Comment", "Created", "Author", "Architecture", "Os", "Size", "GraphDriver", "Metadata"] {
            assert!(json[0].get(key).is_some(), "inspect lacks {key}");
        }
        engine.docker(&["inspect", "nosuch"]).fails(1, "No such object: nosuch");
        engine.docker(&["image", "inspect", "nosuch"]).fails(1, "No such image: nosuch");
    }

    fn removal_conflicts(engine: &Engine) {
        engine.docker(&["run", "-d", "--name", "held", "busybox", "sleep", "60"]).ok();
        engine.docker(&["rmi", "busybox"]).fails(1, "unable to remove repository reference \"busybox\" (must force)");
        let id = engine.docker(&["images", "-q", "busybox"]).ok().to_owned();
        engine.docker(&["rmi", &id]).fails(1, "(cannot be forced) - image is being used by running container");
        engine.docker(&["rm", "-f", "held"]).ok();
        engine.docker(&["tag", "busybox", "second:1"]).ok();
        engine.docker(&["rmi", &id]).fails(1, "(must be forced) - image is referenced in multiple repositories");
        engine.docker(&["rmi", "second:1"]).says("Untagged: second:1").hides("Deleted");
        engine.docker_fed(&["build", "-t", "child", "-"], b"FROM busybox\nENV A=1\n").ok();
        engine.docker(&["rmi", &id]).fails(1, "image has dependent child images");
        engine.docker(&["rmi", "nosuch"]).fails(1, "No such image: nosuch");
        engine.docker(&["rmi", "-f", "child"]).says("Deleted: sha256:");
        engine.docker(&["rmi", "-f", "busybox"]).says("Untagged: busybox:latest").says("Deleted: sha256:");
        assert_eq!(engine.docker(&["images", "-aq"]).ok(), "");
    }

    fn prune(engine: &Engine) {
        engine.docker_fed(&["build", "-"], b"FROM busybox\nRUN echo 12345 > /a\n").ok();
        engine.docker_fed(&["build", "-t", "kept", "-"], b"FROM busybox\nLABEL keep=yes\n").ok();
        let pruned = engine.docker(&["image", "prune", "-f"]);
        pruned.says("deleted: sha256:").says("Total reclaimed space:");
        engine.docker(&["images"]).says("kept").says("busybox").hides("<none>");
        engine.docker(&["image", "prune", "-af", "--filter", "label!=keep"]).says("Total reclaimed space:");
        engine.docker(&["images"]).says("kept");
        engine.docker(&["image", "prune", "-af"]).says("untagged: kept:latest");
        assert_eq!(engine.docker(&["images", "-aq"]).ok(), "");
    }

    fn archives_of_every_kind(engine: &Engine) {
        let id = engine.docker(&["images", "-q", "--no-trunc", "busybox"]).ok().to_owned();
        engine.shell("docker save -o a.tar busybox && docker tag busybox two:2 && docker save busybox two:2 > both.tar").ok();
        engine.shell("tar tf a.tar").says("manifest.json").says("repositories");
        engine.shell("gzip -k a.tar && xz -k0 a.tar && bzip2 -k a.tar && zstd -q -k a.tar").ok();
        for file in ["a.tar", "a.tar.gz", "a.tar.xz", "a.tar.bz2", "a.tar.zst", "both.tar"] {
            if file.ends_with("zst") && !engine.is_boxyard() {
                continue; // dockerd 20.10 does not read zstd.
            }
            engine.shell("docker rmi -f busybox two:2; docker images -q").ok();
            engine.shell(&format!("docker load -i {file}")).says("Loaded image: busybox:latest");
            assert_eq!(engine.docker(&["images", "-q", "--no-trunc", "busybox"]).ok(), id, "{file}");
            assert_eq!(engine.docker(&["run", "--rm", "busybox", "echo", "works"]).ok(), "works", "{file}");
        }
        engine.docker(&["images"]).says("two");
        engine.shell("cat a.tar | docker load -q").says("Loaded image: busybox:latest");
        engine.docker(&["save", "nosuch"]).fails(1, "nosuch");
        engine.shell(&format!("docker save {id} -o byid.tar && docker rmi -f busybox two:2")).ok();
        engine.shell("docker load -i byid.tar").says(&format!("Loaded image ID: {id}"));
        if engine.is_boxyard() {
            engine.shell("skopeo copy -q docker-archive:a.tar oci-archive:o.tar:made:1").ok();
            engine.shell("docker load -i o.tar").says("Loaded image");
            engine.shell("docker save -o new.tar made:1 || docker save -o new.tar $(docker images -q | head -n1)").ok();
            engine.shell("tar tf new.tar").says("oci-layout").says("index.json").says("blobs/sha256/");
            engine.shell("skopeo inspect --raw oci-archive:new.tar").says("layers");
        }
        engine.shell("skopeo copy -q docker-archive:a.tar docker-archive:d.tar:remade:1 && docker load -i d.tar")
            .says("Loaded image: remade:1");
    }

    fn import_makes_an_image(engine: &Engine) {
        engine.shell("mkdir -p root && echo imported > root/file && tar -C root -cf root.tar . && gzip -k root.tar").ok();
        engine.shell("docker import -m 'by hand' -c 'ENV A=1' root.tar imported:1").says("sha256:");
        engine.shell("cat root.tar.gz | docker import - imported:2").says("sha256:");
        engine.docker(&["history", "imported:1"]).says("by hand");
        assert_eq!(engine.docker(&["inspect", "-f", "{{.Config.Env}}", "imported:1"]).ok(), "[A=1]");
        engine.shell("docker create --name im imported:2 x && docker cp im:/file - | tar xO").says("imported");
    }
}

on_postgres_too!(removal_conflicts, prune);
