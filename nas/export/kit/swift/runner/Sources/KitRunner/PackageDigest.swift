import CryptoKit
import Foundation

/// SHA-256 over the sorted relative names of a folder's files, each with a zero byte and the file's content behind it.
enum PackageDigest {
    static func sha256(of folder: URL) throws -> String {
        let root = folder.resolvingSymlinksInPath()
        let keys: [URLResourceKey] = [.isRegularFileKey]
        let found = FileManager.default.enumerator(at: root, includingPropertiesForKeys: keys)
        var files: [[String]] = []
        while let file = found?.nextObject() as? URL {
            guard try file.resourceValues(forKeys: Set(keys)).isRegularFile == true else { continue }
            files.append(Array(file.resolvingSymlinksInPath().pathComponents.dropFirst(root.pathComponents.count)))
        }
        // Name by name, each by its bytes: the order of Python's sorted paths.
        files.sort { one, other in
            one.lexicographicallyPrecedes(other) { $0.utf8.lexicographicallyPrecedes($1.utf8) }
        }
        var hash = SHA256()
        for parts in files {
            hash.update(data: Data(parts.joined(separator: "/").utf8) + [0])
            let handle = try FileHandle(forReadingFrom: root.appendingPathComponent(parts.joined(separator: "/")))
            defer { try? handle.close() }
            while let chunk = try handle.read(upToCount: 1 << 20), !chunk.isEmpty { hash.update(data: chunk) }
        }
        return hash.finalize().map { String(format: "%02x", $0) }.joined()
    }
}
