use super::*;
use crate::matrix::testing::{assert_tensor_close, matrix};
use crate::residual::add;
use crate::testing::{assert_slices_close, noise};
use candle_core::quantized::GgmlDType;
use candle_core::{DType, Device};

const QUANTIZED: [GgmlDType; 10] = blocks::Format::ALL;

fn tensor(values: Vec<f32>, rows: usize) -> Tensor {
    let columns = values.len() / rows;
    Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap()
}

fn values(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

/// Makes a column of every second row, and another of every third, much larger than the rest.
fn with_outliers(mut x: Vec<f32>, k: usize) -> Vec<f32> {
    for (i, row) in x.chunks_mut(k).enumerate() {
        for (_, column) in [(2, 5), (3, k - 1)].iter().filter(|(every, _)| i % every == 0) {
            row[*column] *= 100.0;
        }
    }
    x
}

#[test]
fn dense_products_equal_the_reference() -> Result<()> {
    for (m, n, k) in [(1, 1, 1), (3, 17, 5), (9, 48, 64), (66, 100, 576), (5, 33, 1536)] {
        let x = noise(m * k, 1, 1.0);
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let w = tensor(noise(n * k, 2, 1.0), n).to_dtype(dtype)?;
            let want = reference::linear(&x, &values(&w.to_dtype(DType::F32)?), k);
            let got = Linear::from_tensor(&w)?.forward(&tensor(x.clone(), m))?;
            assert_tensor_close(&got, &want, 1e-6 * (k as f32).sqrt());
        }
    }
    Ok(())
}

#[test]
fn quantised_products_equal_the_reference_on_rounded_activations() -> Result<()> {
    for dtype in QUANTIZED {
        for (m, n, k) in [(1, 1, 256), (3, 17, 512), (9, 48, 768), (5, 33, 96)] {
            if k % dtype.block_size() != 0 {
                continue;
            }
            let x = with_outliers(noise(m * k, 3, 2.0), k);
            let w = QTensor::quantize(&tensor(noise(n * k, 4, 1.0), n), dtype)?;
            let wide = values(&w.dequantize(&Device::Cpu)?);
            let want = reference::linear(&reference::round_activations(&x, k), &wide, k);
            let got = Linear::from_quantized(&w)?.forward(&tensor(x, m))?;
            assert_tensor_close(&got, &want, 3e-6);
        }
    }
    Ok(())
}

#[test]
fn portable_products_equal_the_reference() -> Result<()> {
    let (m, n, k) = (5, 17, 256);
    let x = noise(m * k, 5, 1.0);
    let w = tensor(noise(n * k, 6, 1.0), n);
    let want = reference::linear(&x, &values(&w), k);
    let dense = portable::Weights::dense(&w)?.forward(&tensor(x.clone(), m))?;
    assert_tensor_close(&dense, &want, 1e-5);
    let quantized = QTensor::quantize(&w, GgmlDType::Q8_0)?;
    let got = portable::Weights::quantized(&quantized)?.forward(&tensor(x, m))?;
    assert_tensor_close(&got, &want, 2e-2);
    Ok(())
}

/// A second term of 8 bits makes the spans with outliers precise.
#[test]
fn outliers_cost_no_precision() -> Result<()> {
    let (m, n, k) = (12, 16, 512);
    let x = with_outliers(noise(m * k, 23, 1.0), k);
    let w = QTensor::quantize(&tensor(noise(n * k, 24, 1.0), n), GgmlDType::Q8_0)?;
    let want = reference::linear(&x, &values(&w.dequantize(&Device::Cpu)?), k);
    let got = values(&Linear::from_quantized(&w)?.forward(&tensor(x, m))?);
    let rms = |row: usize| {
        let differences = got.iter().zip(&want).skip(row * n).take(n).map(|(a, b)| a - b);
        (differences.map(|d| d * d).sum::<f32>() / n as f32).sqrt()
    };
    // Row 0 has two outliers, row 1 none: without the second term, row 0 is twenty times as far off.
    assert!(rms(0) < 1.2 * rms(1), "{} and {}", rms(0), rms(1));
    Ok(())
}

/// The bits of a row are the same alone, in any batch, and on any number of threads.
#[test]
fn a_row_does_not_depend_on_its_batch() -> Result<()> {
    let (m, n, k) = (150, 70, 512);
    let x = with_outliers(noise(m * k, 7, 1.0), k);
    let w = tensor(noise(n * k, 8, 1.0), n);
    let mut layers =
        vec![Linear::from_tensor(&w)?, Linear::from_tensor(&w.to_dtype(DType::BF16)?)?];
    for dtype in QUANTIZED {
        layers.push(Linear::from_quantized(&QTensor::quantize(&w, dtype)?)?);
    }
    for layer in layers {
        let all = values(&layer.forward(&tensor(x.clone(), m))?);
        let single = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(all, single.install(|| values(&layer.forward(&tensor(x.clone(), m)).unwrap())));
        for row in [0, 1, 63, 64, 149] {
            let alone = layer.forward(&tensor(x[row * k..][..k].to_vec(), 1))?;
            assert_eq!(all[row * n..][..n], values(&alone), "row {row}");
        }
    }
    Ok(())
}

#[test]
fn merged_matrices_stand_side_by_side() -> Result<()> {
    let (m, k) = (3, 256);
    let x = tensor(noise(m * k, 9, 1.0), m);
    let a = tensor(noise(20 * k, 10, 1.0), 20);
    let b = QTensor::quantize(&tensor(noise(7 * k, 11, 1.0), 7), GgmlDType::Q4K)?;
    let bias = noise(27, 12, 1.0);
    let parts = vec![Linear::from_tensor(&a)?, Linear::from_quantized(&b)?];
    let merged = Linear::merge(parts)?.with_bias(&Tensor::new(&bias[..], &Device::Cpu)?)?;
    let got = values(&merged.forward(&x)?);
    let left = values(&Linear::from_tensor(&a)?.forward(&x)?);
    let right = values(&Linear::from_quantized(&b)?.forward(&x)?);
    for row in 0..m {
        let want: Vec<f32> = left[row * 20..][..20]
            .iter()
            .chain(&right[row * 7..][..7])
            .zip(&bias)
            .map(|(y, b)| y + b)
            .collect();
        assert_slices_close(&got[row * 27..][..27], &want, 0.0);
    }
    Ok(())
}

#[test]
fn shapes_that_do_not_fit_are_refused() -> Result<()> {
    let w = Linear::from_tensor(&tensor(noise(8, 13, 1.0), 2))?;
    let x = tensor(noise(10, 14, 1.0), 2);
    assert!(w.forward(&x).unwrap_err().to_string().contains("5 columns"));
    Ok(())
}

#[test]
fn no_rows_give_no_rows() -> Result<()> {
    let w = tensor(noise(8 * 32, 15, 1.0), 8);
    let none = Tensor::zeros((0, 32), DType::F32, &Device::Cpu)?;
    for layer in [
        Linear::from_tensor(&w)?,
        Linear::from_quantized(&QTensor::quantize(&w, GgmlDType::Q8_0)?)?,
    ] {
        assert_eq!(layer.forward(&none)?.dims(), [0, 8]);
    }
    Ok(())
}

/// Norm, gate and residual done together with the product give the bits of doing them one by one.
#[test]
fn one_operation_equals_the_operations_one_by_one() -> Result<()> {
    let (n, k) = (70, 64);
    let w = tensor(noise(n * k, 16, 1.0), n);
    let quantized = |dtype| Linear::from_quantized(&QTensor::quantize(&w, dtype)?);
    let bias = Tensor::from_vec(noise(n, 17, 1.0), n, &Device::Cpu)?;
    let layers = [
        Linear::from_tensor(&w)?,
        quantized(GgmlDType::Q4_1)?,
        quantized(GgmlDType::Q8_0)?.with_bias(&bias)?,
        Linear::merge(vec![quantized(GgmlDType::Q4_0)?, quantized(GgmlDType::Q8_0)?])?,
    ];
    let weight = Tensor::from_vec(noise(k, 18, 1.0), k, &Device::Cpu)?;
    let (mut work, mut normed, mut gated) = Default::default();
    let (mut got, mut sum) = (Matrix::default(), Matrix::default());
    for layer in &layers {
        for m in [13, 1, 5, 6] {
            let x = matrix(noise(m * k, 19, 3.0), k);
            let gate_up = matrix(noise(2 * m * k, 20, 3.0), 2 * k);
            let residual = matrix(noise(m * layer.n(), 21, 3.0), layer.n());
            rms_norm(x.view(), &weight, 1e-5, &mut normed)?;
            silu_mul(gate_up.view(), &mut gated)?;
            for (input, rows) in [
                (Input::Rows(x.view()), &x),
                (Input::Normed { x: x.view(), weight: &weight, eps: 1e-5 }, &normed),
                (Input::Gated(gate_up.view()), &gated),
            ] {
                let bare = Matrix::from_tensor(&layer.forward(&rows.to_tensor()?)?)?;
                layer.multiply(input.clone(), &mut work, &mut got)?;
                assert_eq!(got.slice(), bare.slice());
                sum.copy(residual.view())?;
                layer.add_product(input, &mut work, &mut sum)?;
                got.copy(residual.view())?;
                add(&mut got, bare.view())?;
                assert_eq!(sum.slice(), got.slice());
            }
        }
    }
    Ok(())
}

#[test]
fn inputs_that_do_not_fit_are_refused() -> Result<()> {
    let (n, k) = (70, 64);
    let layer = Linear::from_tensor(&tensor(noise(n * k, 16, 1.0), n))?;
    let norm = Tensor::from_vec(noise(n, 17, 1.0), n, &Device::Cpu)?;
    let (mut work, mut x) = (Workspace::default(), matrix(noise(2 * k, 22, 1.0), k));
    let view = Matrix::from_tensor(&x.to_tensor()?)?;
    let error = layer.add_product(Input::Rows(view.view()), &mut work, &mut x).unwrap_err();
    assert!(error.to_string().contains("the sum is (2, 64), wanted (2, 70)"), "{error}");
    let mut refused = |input| layer.multiply(input, &mut work, &mut x).unwrap_err().to_string();
    let input = Input::Normed { x: view.view(), weight: &norm, eps: 1e-5 };
    assert!(refused(input).contains("a norm of [70]"));
    assert!(refused(Input::Gated(view.view())).contains("x has 32 columns"));
    Ok(())
}
