//! load and save of an image of several hundred megabytes, on fresh file systems.

use std::fs;
use std::path::Path;

use kit::{Archive, sha256};

use crate::pair::{Goal, Pair, Report};
use crate::programs::Programs;

const IMAGE: &str = "big:1";

pub fn measure(pair: &Pair, report: &mut Report) {
    let (load, save) = ("load 400 MB", "save 400 MB");
    if !report.wants(load) && !report.wants(save) {
        return;
    }
    let archive = image(IMAGE, &Content { layers: 4, files: 1_400, file_bytes: 50_000 });
    let files = [0, 1].map(|side| pair.folder(side).join("big.tar"));
    for file in &files {
        fs::write(file, &archive).expect("write the archive");
    }
    drop(archive);
    let mut loads = [Vec::new(), Vec::new()];
    let mut saves = [Vec::new(), Vec::new()];
    for _ in 0..3 {
        for (index, side) in pair.sides.iter().enumerate() {
            let file = files[index].to_string_lossy().into_owned();
            let out = pair.folder(index).join("saved.tar").to_string_lossy().into_owned();
            loads[index].push(timed(|| {
                side.docker(&["load", "-q", "-i", &file]).ok();
            }));
            saves[index].push(timed(|| {
                side.docker(&["save", "-o", &out, IMAGE]).ok();
            }));
            assert!(
                fs::metadata(Path::new(&out)).is_ok_and(|file| file.len() > 300_000_000),
                "a whole image was saved"
            );
            side.docker(&["rmi", IMAGE]).ok();
            fs::remove_file(&out).expect("remove the saved archive");
        }
    }
    report.row(load, loads.map(middle), "ms", Goal::Faster(1.0));
    report.row(save, saves.map(middle), "ms", Goal::Faster(1.0));
}

pub fn timed(work: impl FnOnce()) -> f64 {
    let begin = std::time::Instant::now();
    work();
    begin.elapsed().as_secs_f64()
}

pub fn middle(mut taken: Vec<f64>) -> f64 {
    taken.sort_by(f64::total_cmp);
    taken[taken.len() / 2]
}

/// What lies above the Debian root in an image.
pub struct Content {
    pub layers: usize,
    /// In each layer.
    pub files: usize,
    pub file_bytes: usize,
}

/// A docker-archive of one image: a Debian root and layers of files.
pub fn image(tag: &str, content: &Content) -> Vec<u8> {
    let mut layers = vec![fs::read(kit::debian_root()).expect("make setup made it")];
    let mut programs = Programs::new();
    for layer in 0..content.layers {
        let mut archive = Archive::new();
        archive.folder(&format!("data{layer}/"));
        for file in 0..content.files {
            archive.file(&format!("data{layer}/file{file}"), 0o644, &programs.piece(content.file_bytes));
        }
        layers.push(archive.finish());
    }
    let diff_ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", sha256(layer))).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let names: Vec<String> = (0..layers.len()).map(|index| format!("layer{index}.tar")).collect();
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": [tag], "Layers": names}]);
    let mut archive = Archive::new();
    archive.file("config.json", 0o644, config.to_string().as_bytes());
    for (name, layer) in names.iter().zip(&layers) {
        archive.file(name, 0o644, layer);
    }
    archive.file("manifest.json", 0o644, manifest.to_string().as_bytes());
    archive.finish()
}
