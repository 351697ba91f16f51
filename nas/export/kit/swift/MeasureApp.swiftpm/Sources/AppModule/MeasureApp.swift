import KitRunner
import SwiftUI
import UIKit

@main
struct MeasureApp: App {
    var body: some Scene {
        WindowGroup { MeasureView() }
    }
}

/// Measures the kit that was copied to Documents/kit; the records appear beside it.
struct MeasureView: View {
    @State private var lines: [String] = []
    @State private var running = false

    private var documents: URL {
        FileManager.default.urls(for: .documentDirectory, in: .userDomainMask)[0]
    }

    var body: some View {
        VStack(alignment: .leading, spacing: 12) {
            Button(running ? "Measuring, keep the screen on" : "Measure") { start() }
                .buttonStyle(.borderedProminent)
                .disabled(running)
            ScrollView {
                Text(lines.suffix(200).joined(separator: "\n"))
                    .font(.footnote.monospaced())
                    .frame(maxWidth: .infinity, alignment: .leading)
            }
        }
        .padding()
    }

    private func start() {
        running = true
        UIApplication.shared.isIdleTimerDisabled = true
        let kit = documents.appendingPathComponent("kit")
        let records = documents.appendingPathComponent("records.jsonl")
        Task.detached(priority: .userInitiated) {
            do {
                let run = try KitRun(kit: kit, records: records)
                try await run.measureAll { text in Task { @MainActor in lines.append(text) } }
            } catch {
                await MainActor.run { lines.append("stopped: \(error.localizedDescription)") }
            }
            await MainActor.run {
                running = false
                UIApplication.shared.isIdleTimerDisabled = false
            }
        }
    }
}
