use super::*;
use crate::{DtypeChoice, LoadOptions, dummy, load};
use candle_core::quantized::QTensor;
use candle_core::quantized::gguf_file::{self, Value};
use std::collections::HashMap;
use std::path::Path;

const CONFIG: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "hidden_size": 32, "intermediate_size": 64,
    "num_attention_heads": 2, "num_hidden_layers": 2, "vocab_size": 40,
    "max_position_embeddings": 64, "tie_word_embeddings": true
}"#;

type Tensors = HashMap<String, Tensor>;

fn folder(change: impl FnOnce(&mut Tensors)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    dummy::write_checkpoint(folder.path(), CONFIG, 1).unwrap();
    let file = folder.path().join("model.safetensors");
    let mut tensors = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
    change(&mut tensors);
    // The loaded tensors are copies, so the file may be replaced.
    candle_core::safetensors::save(&tensors, &file).unwrap();
    folder
}

fn options(dtype: DtypeChoice) -> LoadOptions {
    LoadOptions { dtype, device: Device::Cpu }
}

fn try_load(source: &Source) -> Result<crate::Decoder> {
    load(source, &options(DtypeChoice::Auto), &mut |_, _| ())
}

fn refusal(folder: &Path) -> String {
    match try_load(&Source::Folder(folder.to_path_buf())) {
        Ok(_) => panic!("loaded"),
        Err(error) => error.to_string(),
    }
}

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap()
}

#[test]
fn a_whole_folder_loads_and_tells_its_progress() {
    let folder = folder(|_| ());
    let mut seen = vec![];
    let source = Source::Folder(folder.path().to_path_buf());
    load(&source, &options(DtypeChoice::Bf16), &mut |done, total| seen.push((done, total)))
        .unwrap();
    let config = crate::config::read(&source).unwrap();
    let bytes = 4 * config.parameters() as u64;
    assert!(seen.is_sorted());
    assert_eq!(seen.last(), Some(&(bytes, bytes)));
}

#[test]
fn buffers_and_the_copy_of_a_tied_head_are_no_leftovers() {
    let folder = folder(|tensors| {
        let embedding = tensors["model.embed_tokens.weight"].copy().unwrap();
        tensors.insert("lm_head.weight".to_string(), embedding);
        let buffer = "model.layers.0.self_attn.rotary_emb.inv_freq".to_string();
        tensors.insert(buffer, zeros(&[8]).to_dtype(DType::F64).unwrap());
    });
    assert!(try_load(&Source::Folder(folder.path().to_path_buf())).is_ok());
}

#[test]
fn missing_misshapen_and_extra_tensors_are_listed_together() {
    let folder = folder(|tensors| {
        tensors.remove("model.layers.1.mlp.up_proj.weight");
        tensors.insert("model.norm.weight".to_string(), zeros(&[33]));
        tensors.insert("model.layers.2.mlp.up_proj.weight".to_string(), zeros(&[1]));
    });
    let message = refusal(folder.path());
    for part in [
        "model.safetensors: does not fit LlamaForCausalLM",
        "1 tensors missing: model.layers.1.mlp.up_proj.weight",
        "1 tensors of the wrong shape: model.norm.weight is [33] instead of [32]",
        "1 tensors that the model does not have: model.layers.2.mlp.up_proj.weight",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn a_type_that_can_not_be_read_is_named() {
    let folder = folder(|tensors| {
        let norm = zeros(&[32]).to_dtype(DType::F64).unwrap();
        tensors.insert("model.norm.weight".to_string(), norm);
    });
    let message = refusal(folder.path());
    assert!(message.contains("`model.norm.weight`") && message.contains("F64"), "{message}");
}

#[test]
fn a_truncated_file_is_named_with_the_tensor_that_is_cut() {
    let folder = folder(|_| ());
    let file = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    let cut_at = |length: usize| {
        std::fs::write(&file, &bytes[..length]).unwrap();
        refusal(folder.path())
    };
    let message = cut_at(bytes.len() - 1);
    assert!(message.contains("model.safetensors: tensor `") && message.contains("truncated"));
    for length in [1, 8, 100] {
        let message = cut_at(length);
        assert!(message.contains("model.safetensors: is truncated inside"), "{message}");
    }
    assert!(cut_at(0).contains("model.safetensors"));
}

#[test]
fn a_header_that_is_no_json_is_an_error() {
    let folder = folder(|_| ());
    let mut bytes = 4u64.to_le_bytes().to_vec();
    bytes.extend(b"{\xff\xff}");
    std::fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
    let message = refusal(folder.path());
    assert!(message.contains("model.safetensors: no valid safetensors header"), "{message}");
}

/// Moves the tensors of a folder into two shards, all norms into the second.
fn shard(folder: &Path) -> Vec<String> {
    let single = folder.join("model.safetensors");
    let tensors = candle_core::safetensors::load(&single, &Device::Cpu).unwrap();
    let (norms, others): (Tensors, Tensors) =
        tensors.into_iter().partition(|(name, _)| name.contains("norm"));
    let mut map = serde_json::Map::new();
    for (file, part) in [("a.safetensors", &others), ("b.safetensors", &norms)] {
        candle_core::safetensors::save(part, folder.join(file)).unwrap();
        map.extend(part.keys().map(|name| (name.clone(), file.into())));
    }
    std::fs::remove_file(single).unwrap();
    let index = serde_json::json!({"metadata": {}, "weight_map": map}).to_string();
    std::fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
    norms.into_keys().collect()
}

#[test]
fn shards_load_like_one_file() {
    let folder = folder(|_| ());
    shard(folder.path());
    assert!(try_load(&Source::Folder(folder.path().to_path_buf())).is_ok());
}

#[test]
fn a_missing_shard_is_named_with_a_tensor_that_lies_in_it() {
    let folder = folder(|_| ());
    let norms = shard(folder.path());
    std::fs::remove_file(folder.path().join("b.safetensors")).unwrap();
    let message = refusal(folder.path());
    assert!(message.contains("its shard b.safetensors is not in the folder"), "{message}");
    assert!(norms.iter().any(|name| message.contains(name)), "{message}");
}

#[test]
fn an_index_that_lies_is_found_out() {
    let folder = folder(|_| ());
    shard(folder.path());
    let index = folder.path().join("model.safetensors.index.json");
    let text = std::fs::read_to_string(&index).unwrap();
    let with = |name: &str, shard: &str| {
        let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value["weight_map"][name] = shard.into();
        std::fs::write(&index, value.to_string()).unwrap();
        refusal(folder.path())
    };
    assert!(with("x.weight", "a.safetensors").contains("`x.weight`: is not in a.safetensors"));
    assert!(with("x.weight", "../a.safetensors").contains("is not the name of a file"));
    std::fs::write(&index, "{}").unwrap();
    assert!(refusal(folder.path()).contains("key `weight_map`"));
    std::fs::write(&index, "{").unwrap();
    assert!(refusal(folder.path()).contains("index.json: not JSON"));
}

#[test]
fn a_folder_without_weights_says_what_was_looked_for() {
    let folder = folder(|_| ());
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    assert!(refusal(folder.path()).contains("neither model.safetensors nor"));
}

/// The same tiny model as a GGUF file: matrices in Q8_0, vectors in f32.
fn gguf(change: impl FnOnce(&mut HashMap<String, QTensor>)) -> tempfile::NamedTempFile {
    use candle_core::quantized::GgmlDType;
    use gguf_file::Value;
    let u32s = [
        ("llama.block_count", 2),
        ("llama.context_length", 64),
        ("llama.embedding_length", 32),
        ("llama.feed_forward_length", 64),
        ("llama.attention.head_count", 2),
        ("llama.vocab_size", 40),
    ];
    let architecture = Value::String("llama".to_string());
    let mut metadata: Vec<_> = u32s.iter().map(|&(key, n)| (key, Value::U32(n))).collect();
    metadata.push(("general.architecture", architecture));
    metadata.push(("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)));
    let mut config = crate::config::from_text(CONFIG, Path::new("config.json")).unwrap();
    config.architecture = crate::spec::Architecture::LlamaGguf;
    let mut tensors = HashMap::new();
    for tensor in config.architecture.spec().tensors(&config) {
        let dtype = if tensor.shape.len() == 1 { GgmlDType::F32 } else { GgmlDType::Q8_0 };
        let values = Tensor::ones(tensor.shape, DType::F32, &Device::Cpu).unwrap();
        tensors.insert(tensor.name, QTensor::quantize(&values, dtype).unwrap());
    }
    change(&mut tensors);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let metadata: Vec<_> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    gguf_file::write(file.as_file_mut(), &metadata, &tensors).unwrap();
    file
}

fn gguf_refusal(file: &Path) -> String {
    match try_load(&Source::Gguf(file.to_path_buf())) {
        Ok(_) => panic!("loaded"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn quantised_weights_stay_quantised_unless_a_type_is_asked_for() {
    let file = gguf(|_| ());
    let source = Source::Gguf(file.path().to_path_buf());
    let auto = load(&source, &options(DtypeChoice::Auto), &mut |_, _| ()).unwrap();
    let wide = load(&source, &options(DtypeChoice::F32), &mut |_, _| ()).unwrap();
    assert!(auto.bytes() * 3 < wide.bytes(), "{} {}", auto.bytes(), wide.bytes());
}

#[test]
fn weights_are_rounded_to_8_bits_where_asked_for() {
    let rounded = |folder: &Path| {
        load(&Source::Folder(folder.to_path_buf()), &options(DtypeChoice::Q8_0), &mut |_, _| ())
    };
    let whole = folder(|_| ());
    let wide = try_load(&Source::Folder(whole.path().to_path_buf())).unwrap();
    let bytes = rounded(whole.path()).unwrap().bytes();
    assert!(bytes * 3 < wide.bytes(), "{bytes} {}", wide.bytes());

    let odd = tempfile::tempdir().unwrap();
    let config = CONFIG.replace("\"intermediate_size\": 64", "\"intermediate_size\": 48");
    dummy::write_checkpoint(odd.path(), &config, 1).unwrap();
    let message = rounded(odd.path()).err().unwrap().to_string();
    let wanted = "tensor `model.layers.0.mlp.down_proj.weight`: rows of 48 numbers can't be q8_0";
    assert!(message.contains(wanted), "{message}");
}

#[test]
fn rope_factors_of_a_gguf_file_are_taken() {
    let with = |shape: usize| {
        gguf(|tensors| {
            let ones = Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap();
            let factors = QTensor::quantize(&ones, candle_core::quantized::GgmlDType::F32).unwrap();
            tensors.insert("rope_freqs.weight".to_string(), factors);
        })
    };
    assert!(try_load(&Source::Gguf(with(8).path().to_path_buf())).is_ok());
    let message = gguf_refusal(with(9).path());
    assert!(message.contains("rope_freqs.weight is [9] instead of [8]"), "{message}");
}

#[test]
fn missing_and_extra_tensors_of_a_gguf_file_are_listed() {
    let file = gguf(|tensors| {
        let norm = tensors.remove("output_norm.weight").unwrap();
        tensors.insert("blk.0.attn_scale.weight".to_string(), norm);
    });
    let message = gguf_refusal(file.path());
    assert!(message.contains("1 tensors missing: output_norm.weight"), "{message}");
    assert!(message.contains("does not have: blk.0.attn_scale.weight"), "{message}");
}

#[test]
fn a_truncated_gguf_file_is_named_with_the_tensor_that_is_cut() {
    let file = gguf(|_| ());
    let bytes = std::fs::read(file.path()).unwrap();
    let name = file.path().display().to_string();
    let cut = tempfile::NamedTempFile::new().unwrap();
    let cut_at = |length: usize| {
        std::fs::write(cut.path(), &bytes[..length]).unwrap();
        gguf_refusal(cut.path())
    };
    let message = cut_at(bytes.len() - 64);
    assert!(message.contains(": tensor `") && message.contains("truncated"), "{message}");
    for length in [3, 20, 200] {
        assert!(cut_at(length).contains("no valid GGUF header"), "{name} cut at {length}");
    }
}

/// Changes single bytes of a header: the file loads or is refused by name, and nothing panics.
fn damage(bytes: &[u8], header: usize, path: &Path, source: &Source) {
    let mut refused = 0;
    for i in 0..header {
        let mut damaged = bytes.to_vec();
        damaged[i] ^= [0x01, 0x80, 0xff, 0x20, 0x03][i % 5];
        std::fs::write(path, &damaged).unwrap();
        if let Err(error) = try_load(source) {
            refused += 1;
            let message = error.to_string();
            assert!(message.contains(&path.parent().unwrap().display().to_string()), "{message}");
        }
    }
    assert!(refused > header / 2, "only {refused} of {header} were refused");
}

#[test]
fn no_damaged_byte_of_a_safetensors_header_makes_the_loader_panic() {
    let folder = folder(|_| ());
    let file = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    damage(&bytes, 700, &file, &Source::Folder(folder.path().to_path_buf()));
}

#[test]
fn no_damaged_byte_of_a_gguf_header_makes_the_loader_panic() {
    let file = gguf(|_| ());
    let bytes = std::fs::read(file.path()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    damage(&bytes, 1500, &path, &Source::Gguf(path.clone()));
}

/// Where a tensor's type stands in a header; its offset follows.
fn type_of(tensor: &str, bytes: &[u8]) -> usize {
    let end = bytes.windows(tensor.len()).position(|name| name == tensor.as_bytes()).unwrap();
    let dims = end + tensor.len();
    dims + 4 + 8 * usize::from(bytes[dims])
}

#[test]
fn tensors_of_a_gguf_file_that_share_their_bytes_or_name_are_refused() {
    let file = gguf(|_| ());
    let bytes = std::fs::read(file.path()).unwrap();
    let changed = tempfile::NamedTempFile::new().unwrap();
    let refusal = |bytes: Vec<u8>| {
        std::fs::write(changed.path(), bytes).unwrap();
        gguf_refusal(changed.path())
    };
    let (one, other) = ("blk.0.attn_norm.weight", "blk.1.attn_norm.weight");
    let offset = |tensor: &str| type_of(tensor, &bytes) + 4..type_of(tensor, &bytes) + 12;
    let mut shared = bytes.clone();
    shared.copy_within(offset(one), offset(other).start);
    let message = refusal(shared);
    let wanted = format!("tensor `{other}`: overlaps tensor `{one}`");
    assert!(message.contains(&wanted), "{message}");
    let mut shifted = bytes.clone();
    shifted[offset(one).start] += 4;
    let message = refusal(shifted);
    assert!(message.contains(&format!("tensor `{one}`: begins at ")), "{message}");
    let mut doubled = bytes.clone();
    let name = type_of(other, &bytes) - 12 - other.len();
    doubled[name..name + other.len()].copy_from_slice(one.as_bytes());
    assert!(refusal(doubled).contains("lists two tensors of one name"));
}

#[test]
fn types_that_can_not_be_read_are_named_with_what_to_take_instead() {
    let file = gguf(|_| ());
    let mut bytes = std::fs::read(file.path()).unwrap();
    let place = type_of("output_norm.weight", &bytes);
    for (number, name) in [(20, "20 (IQ4_NL)"), (39, "39 (MXFP4)"), (99, "99 (an unknown one)")] {
        bytes[place] = number;
        std::fs::write(file.path(), &bytes).unwrap();
        let message = gguf_refusal(file.path());
        let wanted = format!("holds tensors of type {name}, which can't be read; take a Q4_K_M");
        assert!(message.contains(&wanted), "{message}");
    }
}

#[test]
fn a_part_of_a_gguf_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    for count in [Value::U16(3), Value::I32(3)] {
        let metadata = [("split.no", &Value::U16(1)), ("split.count", &count)];
        gguf_file::write(&mut File::create(&path).unwrap(), &metadata, &[]).unwrap();
        let error = crate::config::read(&Source::Gguf(path.clone())).unwrap_err().to_string();
        assert!(error.contains("x.gguf: is part 2 of 3 of a model"), "{error}");
    }
}

#[test]
fn an_alignment_of_zero_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    for value in [Value::U32(0), Value::U8(0), Value::I16(0)] {
        let metadata = [("general.alignment", &value)];
        gguf_file::write(&mut File::create(&path).unwrap(), &metadata, &[]).unwrap();
        let error = crate::config::read(&Source::Gguf(path.clone())).unwrap_err().to_string();
        assert!(error.contains("x.gguf: key `general.alignment`: 0"), "{error}");
    }
    // Neither a text that looks like the key, nor a list or a long text before it, nor a key twice.
    let decoy = Value::String("\u{11}\0\0\0\0\0\0\0general.alignment".to_owned());
    let list = Value::Array(vec![Value::String("x".to_owned()), Value::String(String::new())]);
    let (zero, some) = (Value::U32(0), Value::U32(32));
    for before in [
        ("general.note", &decoy),
        ("general.list", &list),
        ("general.alignment", &some),
        ("general.flag", &Value::Bool(true)),
    ] {
        let metadata = [before, ("general.alignment\0", &zero)];
        gguf_file::write(&mut File::create(&path).unwrap(), &metadata, &[]).unwrap();
        let error = crate::config::read(&Source::Gguf(path.clone())).unwrap_err().to_string();
        assert!(error.contains("key `general.alignment`: 0"), "{error}");
    }
    let metadata = [("general.alignment", &zero), ("general.alignment", &some)];
    gguf_file::write(&mut File::create(&path).unwrap(), &metadata, &[]).unwrap();
    let error = crate::config::read(&Source::Gguf(path.clone())).unwrap_err().to_string();
    assert!(error.contains("general.architecture"), "{error}");
    let metadata = [("general.alignment", &Value::U32(64))];
    gguf_file::write(&mut File::create(&path).unwrap(), &metadata, &[]).unwrap();
    let error = crate::config::read(&Source::Gguf(path)).unwrap_err().to_string();
    assert!(error.contains("general.architecture"), "{error}");
}
