//! Which files of a model's repository an engine loads: many repositories hold the same weights in several formats.

use super::info::{RemoteFile, Snapshot};

/// Endings of weights, the preferred ones first. Other formats count as weights when a better one is there.
const WEIGHTS: &[&str] =
    &[".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".ot", ".tflite"];
/// Directories that hold the same model once more, for other programs.
const OTHERS: &[&str] = &["original/", "onnx/", "openvino/", "coreml/", "gguf/"];
/// The whole model once more in one piece, beside its parts.
const ONE_PIECE: &str = "consolidated";

impl Snapshot {
    /// The files that engines load: everything but second copies of the weights.
    pub fn for_engines(&self) -> Vec<&RemoteFile> {
        for_engines(self.files.iter(), |f| &f.path)
    }

    /// Bytes of the weights that engines load.
    pub fn weight_bytes(&self) -> u64 {
        weight_bytes(self.files.iter().map(|f| (f.path.as_str(), f.size)))
    }
}

/// Bytes of the weights that engines load of these files: paths below the model's directory, with their sizes.
pub fn weight_bytes<'f>(files: impl Iterator<Item = (&'f str, u64)>) -> u64 {
    let loaded = for_engines(files, |(path, _)| path);
    loaded.into_iter().filter(|(path, _)| is_weight(path)).map(|(_, size)| size).sum()
}

fn for_engines<F>(files: impl Iterator<Item = F>, path: impl Fn(&F) -> &str) -> Vec<F> {
    let own: Vec<F> = files.filter(|f| !is_other(path(f))).collect();
    let best = WEIGHTS.iter().find(|ending| own.iter().any(|f| path(f).ends_with(**ending)));
    let parts = own.iter().any(|f| is_weight(path(f)) && !path(f).starts_with(ONE_PIECE));
    let wanted = |f: &F| {
        let path = path(f);
        let second = is_weight(path) && !best.is_some_and(|best| path.ends_with(best));
        let whole = parts && path.starts_with(ONE_PIECE) && is_weight(path);
        !second && !whole && !path.starts_with('.')
    };
    own.into_iter().filter(wanted).collect()
}

fn is_weight(path: &str) -> bool {
    WEIGHTS.iter().any(|ending| path.ends_with(ending))
}

fn is_other(path: &str) -> bool {
    OTHERS.iter().any(|dir| path.starts_with(dir))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::model::Content;

    fn chosen(paths: &[&str]) -> (Vec<String>, u64) {
        let file = |p: &&str| RemoteFile { path: (*p).into(), size: 10, content: Content::GitBlob("0".repeat(40)) };
        let snapshot = Snapshot { commit: String::new(), gated: false, files: paths.iter().map(file).collect() };
        (snapshot.for_engines().iter().map(|f| f.path.clone()).collect(), snapshot.weight_bytes())
    }

    #[test]
    fn second_copies_of_the_weights_are_left_out() {
        let (paths, bytes) = chosen(&[
            ".gitattributes",
            "config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "pytorch_model.bin",
            "consolidated.safetensors",
            "original/consolidated.00.pth",
            "onnx/model.onnx",
            "tokenizer.json",
        ]);
        let expected =
            ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "tokenizer.json"];
        assert_eq!((paths, bytes), (expected.map(String::from).to_vec(), 20));
        assert_eq!(
            chosen(&["config.json", "pytorch_model.bin", "flax_model.msgpack"]).0,
            ["config.json", "pytorch_model.bin"]
        );
        assert_eq!(chosen(&["consolidated.safetensors", "params.json"]).0.len(), 2);
        assert_eq!(chosen(&["README.md"]).0, ["README.md"]);
    }
}
