// The page of a sweep: a table that sorts.

document.querySelectorAll("table.sortable").forEach(sortable);
document.body.dataset.ready = "yes";
