// swift-tools-version: 5.9
import PackageDescription

let package = Package(
    name: "KitRunner",
    platforms: [.macOS("14.4"), .iOS("17.4")],
    products: [
        .library(name: "KitRunner", targets: ["KitRunner"]),
        .executable(name: "measure", targets: ["measure"]),
    ],
    targets: [
        .target(name: "KitRunner"),
        .executableTarget(name: "measure", dependencies: ["KitRunner"]),
    ]
)
