import Foundation

/// Goes through a kit's jobs, one line at the start and one at the end of each; jobs with an end are not done again.
public final class KitRun {
    private let kit: URL
    private let records: URL
    private let manifest: Manifest
    private let file: RecordsFile
    private let runId: String

    public init(kit: URL, records: URL) throws {
        self.kit = kit
        self.records = records
        manifest = try Manifest(contentsOf: kit.appendingPathComponent("manifest.json"))
        file = try RecordsFile(records)
        if let other = file.earlier.first(where: { $0.kit != manifest.kit }) { throw KitError.otherKit(other.kit) }
        runId = file.earlier.first?.runId ?? "\(manifest.kit) \(Self.timestamp())"
    }

    public func measureAll(log: @escaping (String) -> Void) async throws {
        var finished = file.finished
        if var interrupted = file.interrupted {
            interrupted.state = "finished"
            interrupted.time = Self.timestamp()
            interrupted.error = LastReading.failure(of: interrupted.job, reading: LastReading.read(beside: records))
            try file.append(interrupted)
            finished.insert(interrupted.job)
            log("\(interrupted.job): \(interrupted.error?.message ?? "")")
        }
        try await rest(seconds: manifest.measuring.firstRestSeconds)
        for (index, job) in manifest.jobs.enumerated() where !finished.contains(job.job) {
            let record = try await measure(job)
            let result = record.latency.map { String(format: "%.3f ms", $0.median) } ?? record.error?.message ?? ""
            log("\(index + 1)/\(manifest.jobs.count) \(job.job): \(result)")
            try await rest(seconds: manifest.measuring.restSeconds)
        }
        try? FileManager.default.removeItem(at: LastReading.file(beside: records))
        log("done: \(records.lastPathComponent)")
    }

    private func measure(_ job: Manifest.Job) async throws -> DeviceRecord {
        let package = kit.appendingPathComponent(job.package)
        var model = job.model
        model.sha256 = try PackageDigest.sha256(of: package)
        guard model.sha256 == job.model.sha256 else { throw KitError.changedPackage(job.package) }
        var record = DeviceRecord(
            runId: runId,
            time: Self.timestamp(),
            host: Host(),
            device: await Machine.describe(),
            model: model,
            config: job.config,
            kit: manifest.kit,
            job: job.job,
            scenario: job.scenario,
            state: "started"
        )
        try file.append(record)
        let measurement = JobMeasurement(
            job: job, measuring: manifest.measuring, package: package, records: records
        )
        await measurement.fill(&record)
        record.state = "finished"
        record.time = Self.timestamp()
        record.device.thermalEnd = Machine.thermalState
        try file.append(record)
        return record
    }

    /// Wait, and go on waiting while the device is warmer than nominal, up to the longest rest.
    private func rest(seconds: Double) async throws {
        try await Task.sleep(for: .seconds(seconds))
        var waited = seconds
        while Machine.thermalState != "nominal" && waited < manifest.measuring.maxRestSeconds {
            try await Task.sleep(for: .seconds(5))
            waited += 5
        }
    }

    private static func timestamp() -> String { ISO8601DateFormatter().string(from: Date()) }
}
