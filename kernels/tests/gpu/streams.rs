//! Memory, streams, events, graphs.

use crate::harness::{noise, poisoned, stream};
use kernels::gpu::{Buffer, Event, Gpu, Stream};

#[test]
fn numbers_come_back_as_they_went() {
    let stream = stream();
    let values = noise(1000, 1, 5.0);
    let buffer = stream.buffer_of(&values).unwrap();
    assert_eq!(stream.read(&buffer).unwrap(), values);
    let part = buffer.slice(16..40);
    assert_eq!(stream.read(&part).unwrap(), values[16..40]);
    stream.write(&part, &[7.0f32; 4]).unwrap();
    assert_eq!(stream.read(&buffer).unwrap()[15..21], [values[15], 7.0, 7.0, 7.0, 7.0, values[20]]);
}

#[test]
fn too_short_arrays_are_refused() {
    let stream = stream();
    let short: Buffer<f32> = stream.gpu().alloc(3).unwrap();
    let error = stream.write(&short, &[0.0; 4]).unwrap_err().to_string();
    assert!(error.contains("4 numbers to 3"), "{error}");
    let pinned = stream.gpu().alloc_pinned::<f32>(8).unwrap();
    assert!(stream.upload(&pinned, &short, 4).is_err());
    assert!(stream.upload(&pinned, &short, 3).is_ok());
}

#[test]
fn a_graph_runs_with_what_its_buffers_hold_then() {
    let stream = stream();
    let from = stream.buffer_of(&[1u32, 2, 3, 4]).unwrap();
    let to: Buffer<u32> = poisoned(&stream, 4);
    stream.wait().unwrap();
    let graph = stream.capture(|s| s.copy_buffer(&from, &to)).unwrap();
    assert_eq!(stream.read(&to).unwrap(), [u32::MAX; 4], "recording runs nothing");
    for values in [[5, 6, 7, 8], [9, 9, 9, 9]] {
        stream.write(&from, &values).unwrap();
        stream.launch(&graph).unwrap();
        assert_eq!(stream.read(&to).unwrap(), values);
    }
    drop((from, to));
    stream.launch(&graph).unwrap();
    stream.wait().unwrap();
}

#[test]
fn memory_of_the_host_is_not_recorded() {
    let stream = stream();
    let buffer: Buffer<u32> = stream.gpu().alloc(4).unwrap();
    let pinned = stream.gpu().alloc_pinned(4).unwrap();
    assert!(stream.capture(|s| s.upload(&pinned, &buffer, 4)).is_err());
    stream.upload(&pinned, &buffer, 4).unwrap();
    stream.wait().unwrap();
}

#[test]
fn streams_wait_for_events_of_others() {
    let gpu = Gpu::open(0).unwrap();
    let (first, second) = (Stream::new(&gpu).unwrap(), Stream::new(&gpu).unwrap());
    let event = Event::new(&gpu).unwrap();
    let buffer: Buffer<u32> = gpu.alloc(1 << 20).unwrap();
    let copy: Buffer<u32> = gpu.alloc(1 << 20).unwrap();
    for round in 0..5u8 {
        first.fill(&buffer, round).unwrap();
        first.record(&event).unwrap();
        second.follow(&event).unwrap();
        second.copy_buffer(&buffer, &copy).unwrap();
        let want = u32::from_ne_bytes([round; 4]);
        assert!(second.read(&copy).unwrap().iter().all(|&x| x == want));
        assert!(event.is_done().unwrap());
    }
}

#[test]
fn events_measure_time() {
    let stream = stream();
    let (start, end) = (Event::new(stream.gpu()).unwrap(), Event::new(stream.gpu()).unwrap());
    let buffer: Buffer<u32> = stream.gpu().alloc(1 << 20).unwrap();
    stream.record(&start).unwrap();
    stream.fill(&buffer, 1).unwrap();
    stream.record(&end).unwrap();
    end.wait().unwrap();
    assert!(start.milliseconds_to(&end).unwrap() > 0.0);
}

#[test]
fn memory_that_is_not_there_is_refused() {
    let gpu = Gpu::open(0).unwrap();
    let memory = gpu.memory().unwrap();
    assert!(memory.free <= memory.total);
    let error = gpu.alloc::<u8>(memory.total as usize + 1).unwrap_err().to_string();
    assert!(error.contains("memory"), "{error}");
    let buffer = gpu.alloc::<u8>(1 << 20).unwrap();
    assert!(gpu.memory().unwrap().free < memory.total);
    drop(buffer);
}
