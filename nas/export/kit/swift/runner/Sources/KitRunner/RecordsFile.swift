import Foundation

/// The JSON Lines file: each line is forced to the disk before the next job begins, so that a kill loses one job.
final class RecordsFile {
    private let handle: FileHandle
    private let encoder = JSONEncoder()
    /// Lines that were there already; an unfinished last line is dropped.
    private(set) var earlier: [DeviceRecord] = []

    init(_ url: URL) throws {
        encoder.keyEncodingStrategy = .convertToSnakeCase
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        if !FileManager.default.fileExists(atPath: url.path) {
            FileManager.default.createFile(atPath: url.path, contents: nil)
        }
        let data = try Data(contentsOf: url)
        let whole = data.lastIndex(of: UInt8(ascii: "\n")).map { data.index(after: $0) } ?? data.startIndex
        earlier = data[..<whole].split(separator: UInt8(ascii: "\n")).compactMap {
            try? decoder.decode(DeviceRecord.self, from: Data($0))
        }
        handle = try FileHandle(forUpdating: url)
        try handle.truncate(atOffset: UInt64(whole - data.startIndex))
        try handle.seekToEnd()
    }

    /// Jobs that have an end, and the started one that has none: the runner was killed in it.
    var finished: Set<String> { Set(earlier.filter { $0.state == "finished" }.map(\.job)) }
    var interrupted: DeviceRecord? { earlier.last { $0.state == "started" && !finished.contains($0.job) } }

    func append(_ record: DeviceRecord) throws {
        var line = try encoder.encode(record)
        line.append(UInt8(ascii: "\n"))
        try handle.write(contentsOf: line)
        try handle.synchronize()
    }
}

/// The last memory reading of the job under way, on the disk: what is known of a job that memory pressure ended.
struct LastReading: Codable {
    var job: String
    var footprint: UInt64
    var available: UInt64?

    static func file(beside records: URL) -> URL { records.appendingPathExtension("last") }

    func write(beside records: URL) {
        try? JSONEncoder().encode(self).write(to: Self.file(beside: records), options: .atomic)
    }

    static func read(beside records: URL) -> LastReading? {
        guard let data = try? Data(contentsOf: file(beside: records)) else { return nil }
        return try? JSONDecoder().decode(LastReading.self, from: data)
    }

    /// Why the job has no result: memory, where next to none was left; else unknown.
    static func failure(of job: String, reading: LastReading?) -> Failure {
        guard let reading, reading.job == job else {
            return Failure(stage: "predict", message: "the runner was ended in this job, for an unknown reason")
        }
        let megabytes = Double(reading.footprint) / 1e6
        var text = "the runner was ended in this job with a footprint of \(Int(megabytes)) MB"
        guard let available = reading.available else { return Failure(stage: "predict", message: text) }
        text += " and \(available / 1_000_000) MB available"
        let short = Double(available) < 0.05 * Double(available + reading.footprint)
        return short
            ? Failure(stage: "out_of_memory", message: text, limitMb: megabytes)
            : Failure(stage: "predict", message: text)
    }
}
