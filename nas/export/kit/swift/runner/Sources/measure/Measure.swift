import Foundation
import KitRunner

/// `measure KIT [RECORDS]`: measure a kit on this Mac; called again it goes on where it stopped.
@main
struct Measure {
    static func main() async {
        let arguments = CommandLine.arguments.dropFirst()
        guard let folder = arguments.first, arguments.count <= 2, !folder.hasPrefix("-") else {
            FileHandle.standardError.write(Data("usage: measure KIT [RECORDS]\n".utf8))
            exit(2)
        }
        let kit = URL(fileURLWithPath: folder, isDirectory: true)
        let records = arguments.dropFirst().first.map { URL(fileURLWithPath: $0) }
            ?? kit.appendingPathComponent("records.jsonl")
        do {
            try await KitRun(kit: kit, records: records).measureAll { print($0) }
        } catch {
            FileHandle.standardError.write(Data("stopped: \(error.localizedDescription)\n".utf8))
            exit(1)
        }
    }
}
