/** Registers `<milepost-job src="/api/jobs/ID">`, the element of the dashboard, on the connection of this package. */
import "../../../dashboard/src/element/milepost-job";

export {};
