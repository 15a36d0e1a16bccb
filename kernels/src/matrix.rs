//! What operations read and write: rows of f32 in the memory of the device that computes.

use crate::host::{has_own, with_f32};
use candle_core::{Device, Result, Tensor, bail};
use std::borrow::Cow;
use std::ops::Range;

/// `[rows, columns]` of f32. On the processor it is memory that operations write to and that is kept
/// from one use to the next: it allocates only where it becomes larger than it ever was. On other
/// devices it is whatever tensor came last.
#[derive(Debug, Default)]
pub struct Matrix {
    rows: usize,
    columns: usize,
    numbers: Numbers,
}

#[derive(Debug)]
enum Numbers {
    /// As many as the largest matrix that was here; the first `rows * columns` are this one's.
    Host(Vec<f32>),
    Device(Tensor),
}

impl Default for Numbers {
    fn default() -> Self {
        Self::Host(Vec::new())
    }
}

impl Matrix {
    /// A copy of `[rows, columns]`, f32; of a tensor on another device than the processor, the
    /// tensor itself.
    ///
    /// # Errors
    /// Another rank, type or layout.
    pub fn from_tensor(t: &Tensor) -> Result<Self> {
        let mut matrix = Self::default();
        View::of(t, "a matrix", |rows| matrix.copy(rows))?;
        Ok(matrix)
    }

    /// # Errors
    /// A device that is out of memory.
    pub fn to_tensor(&self) -> Result<Tensor> {
        match &self.numbers {
            Numbers::Host(_) => {
                Tensor::from_slice(self.slice(), (self.rows, self.columns), &Device::Cpu)
            }
            Numbers::Device(t) => Ok(t.clone()),
        }
    }

    /// Number of rows and of columns.
    pub fn dims(&self) -> (usize, usize) {
        (self.rows, self.columns)
    }

    /// All of it.
    pub fn view(&self) -> View<'_> {
        let numbers = match &self.numbers {
            Numbers::Host(_) => Seen::Host(self.slice()),
            Numbers::Device(t) => Seen::Device(t.clone()),
        };
        View { rows: self.rows, columns: self.columns, numbers }
    }

    /// Some rows.
    ///
    /// # Errors
    /// Rows that are not there.
    pub fn rows(&self, range: Range<usize>) -> Result<View<'_>> {
        if range.start > range.end || range.end > self.rows {
            bail!("rows {range:?} of a matrix of {}", self.rows);
        }
        let columns = self.columns;
        let numbers = match &self.numbers {
            Numbers::Host(_) => {
                Seen::Host(&self.slice()[range.start * columns..range.end * columns])
            }
            Numbers::Device(t) => Seen::Device(t.narrow(0, range.start, range.len())?),
        };
        Ok(View { rows: range.len(), columns, numbers })
    }

    /// Makes this the same as `from`.
    ///
    /// # Errors
    /// A tensor that is no matrix.
    pub fn copy(&mut self, from: View) -> Result<()> {
        match from.numbers {
            Seen::Host(numbers) => {
                self.host(from.rows, from.columns).copy_from_slice(numbers);
                Ok(())
            }
            Seen::Device(t) => self.put(t),
        }
    }

    /// Makes this the rows of `from` that `rows` names.
    ///
    /// # Errors
    /// A row that is not there, or a device that is out of memory.
    pub fn pick(&mut self, from: View, rows: &[u32]) -> Result<()> {
        if let Some(row) = rows.iter().find(|&&row| row as usize >= from.rows) {
            bail!("row {row} of a matrix of {}", from.rows);
        }
        let columns = from.columns;
        match from.numbers {
            Seen::Host(from) => {
                let to = self.host(rows.len(), columns).chunks_exact_mut(columns.max(1));
                for (to, &row) in to.zip(rows) {
                    to.copy_from_slice(&from[row as usize * columns..][..columns]);
                }
                Ok(())
            }
            Seen::Device(t) => {
                let rows = Tensor::from_slice(rows, rows.len(), t.device())?;
                self.put(t.index_select(&rows, 0)?)
            }
        }
    }

    /// The numbers, if they lie in the processor's memory.
    pub(crate) fn slice(&self) -> &[f32] {
        match &self.numbers {
            Numbers::Host(numbers) => &numbers[..self.rows * self.columns],
            Numbers::Device(_) => &[],
        }
    }

    /// Makes it a matrix of this size on the processor, of numbers that are yet to be written.
    pub(crate) fn host(&mut self, rows: usize, columns: usize) -> &mut [f32] {
        (self.rows, self.columns) = (rows, columns);
        if let Numbers::Device(_) = self.numbers {
            self.numbers = Numbers::default();
        }
        match &mut self.numbers {
            Numbers::Host(numbers) => {
                if numbers.len() < rows * columns {
                    numbers.resize(rows * columns, 0.0);
                }
                &mut numbers[..rows * columns]
            }
            Numbers::Device(_) => &mut [],
        }
    }

    /// What is there, to be changed in place.
    pub(crate) fn change(&mut self) -> Changed<'_> {
        match &mut self.numbers {
            Numbers::Host(numbers) => Changed::Host(&mut numbers[..self.rows * self.columns]),
            Numbers::Device(t) => Changed::Device(t),
        }
    }

    /// Makes it this tensor, `[rows, columns]` on another device than the processor.
    pub(crate) fn put(&mut self, t: Tensor) -> Result<()> {
        (self.rows, self.columns) = t.dims2()?;
        self.numbers = Numbers::Device(t);
        Ok(())
    }
}

/// Rows of f32 to read.
#[derive(Debug, Clone)]
pub struct View<'a> {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) numbers: Seen<'a>,
}

/// Where they lie.
#[derive(Debug, Clone)]
pub(crate) enum Seen<'a> {
    Host(&'a [f32]),
    Device(Tensor),
}

/// A matrix that is changed: its numbers, or the tensor in place of which another is put.
pub(crate) enum Changed<'a> {
    Host(&'a mut [f32]),
    Device(&'a mut Tensor),
}

impl<'a> View<'a> {
    /// Number of rows and of columns.
    pub fn dims(&self) -> (usize, usize) {
        (self.rows, self.columns)
    }

    /// The numbers, row by row; copied if they lie on a device of its own.
    ///
    /// # Errors
    /// That device's.
    pub fn read(&self) -> Result<Cow<'a, [f32]>> {
        match &self.numbers {
            Seen::Host(numbers) => Ok(Cow::Borrowed(numbers)),
            Seen::Device(t) => Ok(Cow::Owned(t.flatten_all()?.to_vec1()?)),
        }
    }

    /// Calls `f` with the rows of a tensor `[rows, columns]`, f32.
    ///
    /// # Errors
    /// Another rank, type or layout; those of `f`. `what` names the tensor.
    pub fn of<T>(t: &Tensor, what: &str, f: impl FnOnce(View<'_>) -> Result<T>) -> Result<T> {
        let (rows, columns) = t.dims2()?;
        if has_own(t.device()) {
            return with_f32(t, what, |numbers| {
                f(View { rows, columns, numbers: Seen::Host(numbers) })
            });
        }
        f(View { rows, columns, numbers: Seen::Device(t.clone()) })
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::Matrix;
    use crate::testing::assert_slices_close;
    use candle_core::{Device, Tensor};

    /// Rows of `columns`.
    pub fn matrix(values: Vec<f32>, columns: usize) -> Matrix {
        let shape = (values.len() / columns, columns);
        Matrix::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu).unwrap()).unwrap()
    }

    /// As [`assert_slices_close`].
    #[track_caller]
    pub fn assert_close(got: &Matrix, want: &[f32], tolerance: f32) {
        assert_slices_close(&got.view().read().unwrap(), want, tolerance);
    }

    /// As [`assert_slices_close`].
    #[track_caller]
    pub fn assert_tensor_close(got: &Tensor, want: &[f32], tolerance: f32) {
        let got: Vec<f32> = got.flatten_all().unwrap().to_vec1().unwrap();
        assert_slices_close(&got, want, tolerance);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(rows: usize, columns: usize) -> Result<Matrix> {
        let numbers = (0..rows * columns).map(|i| i as f32).collect();
        Matrix::from_tensor(&Tensor::from_vec::<_, f32>(numbers, (rows, columns), &Device::Cpu)?)
    }

    #[test]
    fn memory_is_kept_and_numbers_of_larger_matrices_do_not_show() -> Result<()> {
        let mut matrix = counting(4, 3)?;
        let place = matrix.slice().as_ptr();
        matrix.host(1, 2).fill(7.0);
        assert_eq!(matrix.slice(), [7.0, 7.0]);
        assert_eq!(matrix.to_tensor()?.dims(), [1, 2]);
        matrix.host(2, 6);
        assert_eq!(matrix.slice().as_ptr(), place);
        Ok(())
    }

    #[test]
    fn rows_are_picked_in_any_order_and_only_if_they_are_there() -> Result<()> {
        let (from, mut to) = (counting(4, 2)?, Matrix::default());
        to.pick(from.view(), &[3, 0, 3])?;
        assert_eq!(to.slice(), [6.0, 7.0, 0.0, 1.0, 6.0, 7.0]);
        assert_eq!(*from.rows(1..2)?.read()?, [2.0, 3.0]);
        assert!(to.pick(from.view(), &[4]).unwrap_err().to_string().contains("row 4"));
        assert!(from.rows(3..5).unwrap_err().to_string().contains("rows 3..5"));
        Ok(())
    }
}
