//! The sum of the residual stream and what a block adds to it.

use crate::host::for_each_piece;
use crate::matrix::{Changed, Matrix, Seen, View};
use candle_core::{Result, bail};

/// Elements that one task adds.
const PIECE: usize = 1 << 15;

/// `x += y`, elementwise, of equal shapes.
///
/// (candle's own sum would do; but it brings a second pool of threads, which spin while they wait
/// and so take the processor from everything else here.)
///
/// # Errors
/// Different shapes or devices.
pub fn add(x: &mut Matrix, y: View) -> Result<()> {
    if x.dims() != y.dims() {
        bail!("add: {:?} and {:?}", x.dims(), y.dims());
    }
    match (x.change(), y.numbers) {
        (Changed::Host(x), Seen::Host(y)) => for_each_piece(x, PIECE, y.len(), |i, x| {
            x.iter_mut().zip(&y[i * PIECE..]).for_each(|(x, y)| *x += y);
        }),
        (Changed::Device(x), Seen::Device(y)) => *x = (&*x + y)?,
        _ => bail!("add: matrices of two devices"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::testing::{assert_close, matrix};
    use crate::testing::noise;

    #[test]
    fn sums_are_elementwise() -> Result<()> {
        for len in [1, 17, 100_000] {
            let (x, y) = (noise(len, 1, 1.0), noise(len, 2, 1.0));
            let want: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
            let mut sum = matrix(x, len);
            add(&mut sum, matrix(y.clone(), len).view())?;
            assert_close(&sum, &want, 0.0);
            assert!(add(&mut sum, matrix(y, 1).view()).is_err() || len == 1);
        }
        Ok(())
    }
}
