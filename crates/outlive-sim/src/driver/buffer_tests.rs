//! Tests of kept buffers.

use core::time::Duration;

use crate::driver::{ClientConfig, HostConfig, JobSpec, SimClient, SimHost, Work};
use crate::gpu::{Config, PAGE_BYTES};

const MS: Duration = Duration::from_millis(1);
const KIB: u64 = 1024;
const LARGE: Work = Work::Gears { frame: 1, width: 128, height: 128 };

fn host(memory_bytes: u64) -> SimHost {
    SimHost::new(HostConfig { gpu: Config { memory_bytes, ..Config::default() }, ..HostConfig::default() }).unwrap()
}

fn client(host: &SimHost) -> SimClient {
    SimClient::new(host, "client", ClientConfig::default()).unwrap()
}

/// Runs one job to its end and says where its buffer was.
fn one(host: &SimHost, client: &SimClient, work: Work) -> crate::gpu::PageId {
    let job = client.submit(JobSpec::new(MS, work)).unwrap();
    let page = job.output.pages()[0];
    drop(job);
    host.run_for(10 * MS);
    page
}

#[test]
fn a_client_s_next_job_has_the_buffers_of_its_last() {
    let host = host(16 << 20);
    let first = client(&host);
    let page = one(&host, &first, Work::Copy);
    let taken = host.bytes_in_use();
    let second = client(&host);
    let handed_out = host.shared.lock().memory.generation(page);
    assert_eq!(one(&host, &first, Work::Copy), page);
    assert_ne!(one(&host, &second, Work::Copy), page, "never another client's");
    assert_eq!(host.shared.lock().memory.generation(page), handed_out, "it stayed the client's");
    drop(second);
    host.run_for(MS);
    assert_eq!(host.bytes_in_use(), taken, "it is charged");
    drop(first);
    host.run_for(MS);
    assert_eq!(host.bytes_in_use(), 0);
    let audit = host.finish();
    assert!(audit.is_clean(), "{audit:#?}");
}

#[test]
fn a_client_without_jobs_has_at_most_128_kib() {
    let host = host(16 << 20);
    let client = client(&host);
    let jobs = [Work::Copy, LARGE, Work::Fill, Work::Spin];
    let jobs: Vec<_> =
        jobs.iter().cycle().take(60).map(|work| client.submit(JobSpec::new(MS, *work)).unwrap().id).collect();
    host.run_for(100 * MS);
    let bytes = host.bytes_in_use();
    assert_eq!(jobs.len(), 60);
    assert!((100 * KIB..=128 * KIB).contains(&bytes), "{bytes}");
    let kept: u64 = host.shared.lock().unit.spaces.kept().into_iter().flatten().map(super::Buffer::bytes).sum();
    assert!(kept > 0);
}

#[test]
fn what_is_kept_is_given_back_when_memory_is_short() {
    let host = host(512 * KIB);
    let (idle, busy) = (client(&host), client(&host));
    for work in [Work::Copy, Work::Spin] {
        one(&host, &idle, work);
    }
    let mut jobs = Vec::new();
    while let Ok(job) = busy.submit(JobSpec::spin(MS)) {
        jobs.push(job);
    }
    let kept = host.shared.lock().unit.spaces.kept().iter().map(|kept| kept.len()).collect::<Vec<_>>();
    assert!(kept[0] == 0 && kept[1] <= 1, "{kept:?}: at most what the last one that failed had got");
    assert!(512 * KIB - host.bytes_in_use() < 4 * PAGE_BYTES as u64, "{} of 512 KiB", host.bytes_in_use());
    drop((jobs, idle, busy));
    host.run_for(200 * MS);
    assert_eq!(host.bytes_in_use(), 0);
    let audit = host.finish();
    assert!(audit.is_clean(), "{audit:#?}");
}

#[test]
fn what_others_read_or_hold_is_not_kept() {
    let host = host(16 << 20);
    let (writer, reader) = (client(&host), client(&host));
    let written = writer.submit(JobSpec { shared: true, ..JobSpec::new(MS, Work::Fill) }).unwrap();
    let page = written.output.pages()[0];
    let after = vec![outlive::Dependency::on(written.fences.finished())];
    let read = reader.submit(JobSpec { after, reads: vec![written.output.clone()], ..JobSpec::spin(50 * MS) }).unwrap();
    drop(written);
    host.run_for(10 * MS);
    assert_ne!(one(&host, &writer, Work::Fill), page, "the reader is at it");
    drop((read, writer, reader));
    host.run_for(200 * MS);
    assert_eq!(host.bytes_in_use(), 0);
    let audit = host.finish();
    assert!(audit.is_clean(), "{audit:#?}");
}
